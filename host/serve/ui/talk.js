/* Getting answers: requests under way, what comes of them, and trying again. Any number of chats may be answered at the
 * same time; the page shows one of them. */
import { ApiError, streamChat } from './api.js';
import { asPrompt } from './chat.js';

const SAVE_MS = 1000;
const ANSWER_SHARE = 0.35; /* of the context, left free when old messages are cut */
const CHARS_A_TOKEN = 3.5; /* before any answer has told how many it were */

/* on: shown(chat, message), saved(chat, message), done(chat, message), key() */
export class Talk {
    constructor(on) {
        this.on = on;
        this.running = new Map(); /* message id: { chat, message, abort, pieces, first } */
        this.waiting = new Map(); /* message id: timer of the next try, and its message */
    }

    isRunning(message) {
        return this.running.has(message.id);
    }

    inChat(chatId) {
        return [...this.running.values()].filter((run) => run.message.chat === chatId);
    }

    /* Answers into message, an empty one of the assistant. */
    async start(chat, message, fields) {
        clearTimeout(this.waiting.get(message.id)?.timer);
        this.waiting.delete(message.id);
        const abort = new AbortController();
        const run = { chat, message, fields, abort, begun: performance.now(), first: 0, pieces: 0 };
        this.running.set(message.id, run);
        Object.assign(message, { text: '', status: 'streaming' });
        ['problem', 'served', 'usage', 'finish'].forEach((name) => delete message[name]);
        run.timer = setInterval(() => this.tick(run), SAVE_MS);
        this.on.shown(chat, message);
        this.on.saved(chat, message);
        try {
            await this.receive(run);
            message.status = 'done';
        } catch (error) {
            this.fail(run, error);
        } finally {
            clearInterval(run.timer);
            this.running.delete(message.id);
        }
        this.on.done(chat, message);
    }

    receive(run) {
        const { chat, message } = run;
        const body = {
            ...run.fields,
            messages: asPrompt(chat, chat.messages.get(message.parent)),
            stream: true,
            stream_options: { include_usage: true },
        };
        return streamChat(body, run.abort.signal, {
            text: (piece) => {
                run.pieces += 1;
                run.first = run.first || performance.now();
                message.text += piece;
                this.on.shown(chat, message);
            },
            chunk: (chunk) => {
                message.finish = chunk.choices?.[0]?.finish_reason || message.finish;
                message.usage = chunk.usage || message.usage;
                message.served = chunk.pleiad || message.served;
            },
        });
    }

    tick(run) {
        this.on.shown(run.chat, run.message);
        if (run.pieces) {
            this.on.saved(run.chat, run.message);
        }
    }

    fail(run, error) {
        const { chat, message } = run;
        if (error.name === 'AbortError') {
            message.status = 'stopped';
            return;
        }
        const known = error instanceof ApiError ? error : new ApiError('broken', `This page failed: ${error.message}`);
        message.status = 'failed';
        message.problem = { kind: known.kind, text: known.message };
        if (known.kind === 'busy') {
            message.problem.until = Date.now() + known.wait * 1000;
            const timer = setTimeout(() => this.start(chat, message, run.fields), known.wait * 1000);
            this.waiting.set(message.id, { timer, message });
        } else if (known.kind === 'key') {
            this.on.key();
        }
    }

    /* Stops the answer, or the wait for the next try. */
    stop(message) {
        this.running.get(message.id)?.abort.abort();
        clearTimeout(this.waiting.get(message.id)?.timer);
        if (this.waiting.delete(message.id)) {
            message.problem = { kind: 'busy', text: message.problem.text };
        }
    }

    stopChat(id) {
        [...this.running.values(), ...this.waiting.values()].map(({ message }) => message)
            .filter((message) => message.chat === id).forEach((message) => this.stop(message));
    }

    /* Tokens a second so far, or how long it has waited. */
    progress(message) {
        const run = this.running.get(message.id);
        if (!run) {
            return null;
        }
        const now = performance.now();
        const seconds = (now - run.first) / 1000;
        return run.first
            ? { tokens: run.pieces, rate: run.pieces > 1 && seconds > 0.2 ? (run.pieces - 1) / seconds : 0 }
            : { waited: (now - run.begun) / 1000 };
    }
}

/* How many tokens a character has in this chat, as answers have told. */
function tokensOfChar(branch) {
    const told = [...branch].reverse().find((message) => message.usage?.prompt_tokens);
    if (!told) {
        return 1 / CHARS_A_TOKEN;
    }
    const before = branch.slice(0, branch.indexOf(told) + 1).reduce((sum, message) => sum + message.text.length, 0);
    return (told.usage.prompt_tokens + told.usage.completion_tokens) / Math.max(1, before);
}

/* Lets the chat's oldest messages go, until what is below message fits the context with room for an answer. Each call
 * lets go of at least one turn of the user's; false: there is none left to let go. */
export function cutOldest(chat, message, context) {
    const branch = chat.upTo(message);
    const present = Math.max(0, branch.findIndex((other) => other.id === chat.meta.cut));
    const perChar = tokensOfChar(branch);
    const room = context * (1 - ANSWER_SHARE);
    const size = (from) => perChar *
        branch.slice(from).reduce((sum, other) => sum + other.text.length, chat.meta.system.length);
    const begins = branch.map((other, i) => (other.role === 'user' && i > present ? i : -1)).filter((i) => i > 0);
    if (!begins.length) {
        return false;
    }
    const from = begins.find((i) => size(i) <= room) ?? begins[begins.length - 1];
    chat.meta.cut = branch[from].id;
    return true;
}

/* Tokens of the context that the branch takes, as the last answer told. */
export function tokensUsed(branch) {
    const told = [...branch].reverse().find((message) => message.usage);
    return told ? told.usage.prompt_tokens + told.usage.completion_tokens : 0;
}
