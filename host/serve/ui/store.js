/* Chats in the browser's IndexedDB: a record for each chat's meta and one for each message, so that saving an answer
 * costs the same in a long chat. Where the browser has no IndexedDB for us, all lives until the page is closed. */

import { newId } from './dom.js';
import { kept } from './media.js';

const NAME = 'pleiad';
const MAX_IMPORT_CHARS = 50 * 1000 * 1000;
const ROLES = ['user', 'assistant'];
const MAX_THUMB_CHARS = 200 * 1000;

const wait = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
});

function openDatabase() {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
        request.result.createObjectStore('chats', { keyPath: 'id' });
        request.result.createObjectStore('messages', { keyPath: 'id' }).createIndex('chat', 'chat');
    };
    return wait(request);
}

/* The same calls as an IDBObjectStore's that are used below, in memory. */
class MemoryTable {
    constructor() {
        this.rows = new Map();
    }

    async all(chat) {
        return structuredClone([...this.rows.values()].filter((row) => chat === undefined || row.chat === chat));
    }

    async get(id) {
        return structuredClone(this.rows.get(id));
    }

    async change(puts, deletes) {
        puts.forEach((row) => this.rows.set(row.id, structuredClone(row)));
        deletes.forEach((id) => this.rows.delete(id));
    }
}

class StoredTable {
    constructor(database, name) {
        this.database = database;
        this.name = name;
    }

    rows() {
        return this.database.transaction(this.name).objectStore(this.name);
    }

    all(chat) {
        return wait(chat === undefined ? this.rows().getAll() : this.rows().index('chat').getAll(chat));
    }

    get(id) {
        return wait(this.rows().get(id));
    }

    change(puts, deletes) {
        const transaction = this.database.transaction(this.name, 'readwrite');
        const rows = transaction.objectStore(this.name);
        puts.forEach((row) => rows.put(row));
        deletes.forEach((id) => rows.delete(id));
        transaction.commit(); /* at once: the page may be about to go */
        return new Promise((resolve, reject) => {
            transaction.oncomplete = resolve;
            transaction.onerror = () => reject(transaction.error);
            transaction.onabort = () => reject(transaction.error || new Error('the browser stopped it'));
        });
    }
}

/* In order, without what answers a message that is gone. */
function hanging(messages) {
    const known = new Set();
    return messages.sort((a, b) => a.order - b.order)
        .filter(({ id, parent }) => (parent === null || known.has(parent)) && known.add(id));
}

export class Store {
    /* lasting: whether chats outlive the page. */
    static async open() {
        const store = new Store();
        try {
            const database = await openDatabase();
            store.chats = new StoredTable(database, 'chats');
            store.messages = new StoredTable(database, 'messages');
            store.lasting = true;
        } catch {
            store.chats = new MemoryTable();
            store.messages = new MemoryTable();
            store.lasting = false;
        }
        return store;
    }

    async list() {
        return (await this.chats.all()).sort((a, b) => b.updated - a.updated);
    }

    async load(id) {
        const meta = await this.chats.get(id);
        return meta ? { meta, messages: hanging(await this.messages.all(id)) } : null;
    }

    async save(meta, messages = []) {
        const lean = (message) => (message.media ? { ...message, media: kept(message.media) } : message);
        await this.messages.change(messages.map(lean), []);
        await this.chats.change([meta], []);
    }

    async removeMessages(messages) {
        await this.messages.change([], messages.map((message) => message.id));
    }

    /* What was removed, for save(). */
    async removeChat(id) {
        const chat = await this.load(id);
        await this.chats.change([], [id]);
        await this.removeMessages(chat?.messages || []);
        return chat;
    }

    async clear() {
        for (const { id } of await this.chats.all()) {
            await this.removeChat(id);
        }
    }

    /* Ids of the chats that have all words of the query, in their title or a message. */
    async search(query) {
        const words = query.toLowerCase().split(/\s+/).filter(Boolean);
        const texts = new Map((await this.chats.all()).map((meta) => [meta.id, meta.title.toLowerCase()]));
        for (const { chat, text } of await this.messages.all()) {
            texts.set(chat, `${texts.get(chat) || ''}\n${text.toLowerCase()}`);
        }
        return new Set([...texts].filter(([, text]) => words.every((word) => text.includes(word))).map(([id]) => id));
    }

    async exportAll(only) {
        const chats = [];
        for (const meta of await this.list()) {
            if (only === undefined || meta.id === only) {
                chats.push({ meta, messages: hanging(await this.messages.all(meta.id)) });
            }
        }
        return JSON.stringify({ format: 'pleiad-chats', version: 1, chats }, null, 1);
    }

    /* Adds the chats of an export; one with a known id takes the old one's place. Their ids. */
    async importAll(text) {
        const chats = readExport(text);
        for (const { meta, messages } of chats) {
            await this.removeChat(meta.id);
            await this.save(meta, messages);
        }
        return chats.map(({ meta }) => meta.id);
    }
}

/* ---- imports: whatever the file holds, only well-formed chats come in ---- */

const text = (value, preset = '') => (typeof value === 'string' ? value : preset);
const number = (value, preset) => (Number.isFinite(value) ? value : preset);

function readMeta(meta) {
    if (!meta || typeof meta.id !== 'string' || !meta.id) {
        throw new Error('a chat has no id');
    }
    const picks = Object.entries(meta.picked && typeof meta.picked === 'object' ? meta.picked : {});
    return {
        id: meta.id,
        title: text(meta.title, 'Chat').slice(0, 200),
        named: true,
        system: text(meta.system),
        created: number(meta.created, Date.now()),
        updated: number(meta.updated, Date.now()),
        picked: Object.fromEntries(picks.filter(([, id]) => typeof id === 'string')),
        cut: text(meta.cut, null),
    };
}

/* A picture is a small JPEG of our own and nothing else. */
function readMedia(list) {
    const media = (Array.isArray(list) ? list : []).slice(0, 16)
        .filter((one) => one && ['image', 'audio'].includes(one.kind))
        .map((one) => ({ kind: one.kind, name: text(one.name, 'file').slice(0, 200), thumb: text(one.thumb) }))
        .filter(({ kind, thumb }) => kind === 'audio' || (thumb.length <= MAX_THUMB_CHARS &&
            /^data:image\/jpeg;base64,[A-Za-z0-9+/]+=*$/.test(thumb)));
    return media.length ? { media: kept(media) } : {};
}

function readMessage(message, chat, known, order) {
    if (!message || typeof message.id !== 'string' || !ROLES.includes(message.role) || known.has(message.id)) {
        throw new Error(`message ${order + 1} of chat ${chat} is not one`);
    }
    known.add(message.id);
    const served = message.served && typeof message.served === 'object' ? {
        path: text(message.served.path), reason: text(message.served.reason),
        tokens_per_second: number(message.served.tokens_per_second, 0),
    } : undefined;
    const usage = message.usage && typeof message.usage === 'object' ? {
        prompt_tokens: number(message.usage.prompt_tokens, 0),
        completion_tokens: number(message.usage.completion_tokens, 0),
    } : undefined;
    return {
        id: message.id, chat, parent: text(message.parent, null), role: message.role, text: text(message.text),
        order: number(message.order, order), status: message.status === 'stopped' ? 'stopped' : 'done', served, usage,
        ...readMedia(message.media),
    };
}

export function readExport(source) {
    if (source.length > MAX_IMPORT_CHARS) {
        throw new Error('the file is too large');
    }
    const whole = JSON.parse(source);
    if (whole?.format !== 'pleiad-chats' || whole.version !== 1 || !Array.isArray(whole.chats)) {
        throw new Error('this is no export of chats');
    }
    return whole.chats.map((chat) => {
        const meta = readMeta(chat?.meta);
        const known = new Set();
        const messages = (Array.isArray(chat.messages) ? chat.messages : [])
            .map((message, i) => readMessage(message, meta.id, known, i)).sort((a, b) => a.order - b.order);
        return renamed(meta, messages);
    });
}

/* Messages get new ids: theirs may be those of another chat here. A parent stands before its children, so there are no
 * circles and nothing hangs nowhere. */
function renamed(meta, messages) {
    const ids = new Map([['top', 'top']]);
    for (const message of messages) {
        if (message.parent !== null && !ids.has(message.parent)) {
            throw new Error(`message ${message.id} of chat ${meta.id} answers none`);
        }
        const id = newId();
        ids.set(message.id, id);
        message.parent = message.parent === null ? null : ids.get(message.parent);
        message.id = id;
    }
    const picks = Object.entries(meta.picked).filter(([key, id]) => ids.has(key) && ids.has(id));
    meta.picked = Object.fromEntries(picks.map(([key, id]) => [ids.get(key), ids.get(id)]));
    meta.cut = ids.get(meta.cut) || null;
    return { meta, messages };
}
