/* A chat: a tree of messages, of which one branch is shown. Editing a message or asking again makes a sibling.
 *
 *   meta      { id, title, named, system, created, updated, picked: { parent id or 'top': child id }, cut }
 *             cut: the first message that is still sent, where the context was full
 *   message   { id, chat, parent, role, text, media, order, status, problem, served, usage }
 *             media: what the user shows (media.js); not there: nothing
 *             status: 'done', 'streaming', 'stopped', 'failed' */
import { newId } from './dom.js';
import { partOf } from './media.js';

const MAX_TITLE = 80;

export const newMeta = (system = '') => {
    const now = Date.now();
    return { id: newId(), title: 'New chat', named: false, system, created: now, updated: now, picked: {}, cut: null };
};

export class Chat {
    constructor(meta, messages = []) {
        this.meta = meta;
        this.messages = new Map(messages.map((message) => [message.id, message]));
        this.below = new Map();
        for (const message of [...messages].sort((a, b) => a.order - b.order)) {
            this.hang(message);
        }
        this.order = messages.reduce((most, message) => Math.max(most, message.order), 0);
    }

    hang(message) {
        const key = message.parent || 'top';
        this.below.set(key, [...(this.below.get(key) || []), message]);
    }

    add(role, text, parent, status = 'done', media = []) {
        this.order += 1;
        const place = { chat: this.meta.id, parent: parent || null, order: this.order };
        const message = { id: newId(), ...place, role, text, status, ...(media.length && { media }) };
        this.messages.set(message.id, message);
        this.hang(message);
        this.pick(message);
        this.meta.updated = Date.now();
        return message;
    }

    pick(message) {
        this.meta.picked[message.parent || 'top'] = message.id;
    }

    siblings(message) {
        return this.below.get(message.parent || 'top');
    }

    /* The branch that is shown, from the top. */
    branch() {
        const result = [];
        for (let key = 'top'; this.below.get(key)?.length;) {
            const children = this.below.get(key);
            const picked = children.find((child) => child.id === this.meta.picked[key]);
            const chosen = picked || children[children.length - 1];
            result.push(chosen);
            key = chosen.id;
        }
        return result;
    }

    /* From the top down to message, which is the last. */
    upTo(message) {
        const result = [];
        for (let at = message; at; at = this.messages.get(at.parent)) {
            result.push(at);
        }
        return result.reverse();
    }

    /* Takes message out with all below it; what was taken. */
    remove(message) {
        const taken = [];
        const waiting = [message];
        while (waiting.length) {
            const next = waiting.pop();
            taken.push(next);
            waiting.push(...(this.below.get(next.id) || []));
            this.messages.delete(next.id);
            this.below.delete(next.id);
        }
        const key = message.parent || 'top';
        this.below.set(key, this.below.get(key).filter((other) => other !== message));
        return taken;
    }

    restore(taken) {
        for (const message of taken) {
            this.messages.set(message.id, message);
            this.hang(message);
            this.siblings(message).sort((a, b) => a.order - b.order);
        }
        this.pick(taken[0]);
    }

    /* A title from the first words said, until the user gives one. */
    nameFrom(text) {
        if (!this.meta.named) {
            const line = text.trim().split('\n')[0].replace(/\s+/g, ' ');
            this.meta.title = line.length > MAX_TITLE ? `${line.slice(0, MAX_TITLE - 1)}…` : line || 'New chat';
            this.meta.named = true;
        }
    }
}

/* A text, or parts where something is shown. */
const contentOf = ({ text, media }) => (media
    ? [...media.map(partOf), ...(text.trim() ? [{ type: 'text', text }] : [])] : text);

function joined(a, b) {
    const parts = (content) => (typeof content === 'string' ? [{ type: 'text', text: content }] : content);
    return typeof a === 'string' && typeof b === 'string' ? `${a}\n\n${b}` : [...parts(a), ...parts(b)];
}

/* What is sent for an answer below message: roles must take turns, so what says nothing is left out and what then
 * stands side by side becomes one. */
export function asPrompt(chat, message) {
    const branch = message ? chat.upTo(message) : [];
    const from = Math.max(0, branch.findIndex((other) => other.id === chat.meta.cut));
    const turns = [];
    for (const message of branch.slice(from)) {
        const { role } = message;
        const last = turns[turns.length - 1];
        if (!message.text.trim() && !message.media) {
            continue;
        }
        const content = contentOf(message);
        if (last?.role === role) {
            last.content = joined(last.content, content);
        } else if (last || role === 'user') {
            turns.push({ role, content });
        }
    }
    const system = chat.meta.system.trim();
    return system ? [{ role: 'system', content: system }, ...turns] : turns;
}
