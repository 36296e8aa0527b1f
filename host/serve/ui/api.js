/* The server, as far as the page needs it. Addresses are relative: the page may stand below a path of a proxy. */

const KEY = 'pleiad.key';

export class ApiError extends Error {
    /* kind: 'key', 'busy', 'context', 'gone', 'broken', 'refused' */
    constructor(kind, message, more = {}) {
        super(message);
        this.kind = kind;
        Object.assign(this, more);
    }
}

let key = localStorage.getItem(KEY) || '';

export const hasKey = () => key !== '';
export const keyIsKept = () => localStorage.getItem(KEY) !== null;

export function setKey(value, keep) {
    key = value;
    if (keep && value) {
        localStorage.setItem(KEY, value);
    } else {
        localStorage.removeItem(KEY);
    }
}

const headers = () => ({
    'Content-Type': 'application/json',
    ...(key && { Authorization: `Bearer ${key}` }),
});

/* Retry-After in seconds or as a date; NaN: none. */
function retryAfter(response) {
    const value = response.headers.get('Retry-After');
    const seconds = value === null ? NaN : Number(value);
    return Number.isNaN(seconds) && value ? Math.max(0, (Date.parse(value) - Date.now()) / 1000) : seconds;
}

function errorOf(status, error, wait = NaN) {
    const message = error?.message || `The server answered with status ${status}.`;
    if (status === 401 || status === 403) {
        return new ApiError(status === 401 ? 'key' : 'refused', message);
    }
    if (error?.code === 'context_length_exceeded') {
        return new ApiError('context', message);
    }
    if (status === 429 || (status === 503 && wait > 0)) {
        return new ApiError('busy', message, { wait: Math.min(Math.max(1, Math.ceil(wait || 5)), 600) });
    }
    return new ApiError(status >= 500 ? 'broken' : 'refused', message);
}

async function failed(response) {
    let error = null;
    try {
        ({ error } = await response.json());
    } catch {
        /* a proxy's page, or nothing: the status has to do */
    }
    return errorOf(response.status, error, retryAfter(response));
}

async function send(path, options) {
    let response;
    try {
        response = await fetch(path, { ...options, headers: headers(), cache: 'no-store' });
    } catch (error) {
        if (error.name === 'AbortError') {
            throw error;
        }
        throw new ApiError('gone', 'The server does not answer.');
    }
    if (!response.ok) {
        throw await failed(response);
    }
    return response;
}

export async function getProps() {
    return (await send('props', {})).json();
}

/* The data of each server-sent event; names and comments are left out. */
async function* events(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    let data = [];
    for (;;) {
        const { value, done } = await reader.read();
        if (done) {
            return;
        }
        const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
        rest = lines.pop();
        for (const line of lines) {
            if (line.startsWith('data:')) {
                data.push(line.slice(5).replace(/^ /, ''));
            } else if (line === '' && data.length) {
                yield data.join('\n');
                data = [];
            }
        }
    }
}

/* Streams an answer: on.text(piece), on.chunk(whole chunk). Returns when the server has said it is done. */
export async function streamChat(body, signal, on) {
    const response = await send('v1/chat/completions', { method: 'POST', body: JSON.stringify(body), signal });
    try {
        for await (const data of events(response.body)) {
            if (data === '[DONE]') {
                return;
            }
            const chunk = JSON.parse(data);
            if (chunk.error) {
                throw errorOf(chunk.error.status || 500, chunk.error);
            }
            const piece = chunk.choices?.[0]?.delta?.content;
            if (piece) {
                on.text(piece);
            }
            on.chunk(chunk);
        }
    } catch (error) {
        if (error.name === 'AbortError' || error instanceof ApiError) {
            throw error;
        }
    }
    if (signal.aborted) {
        throw new DOMException('stopped', 'AbortError');
    }
    throw new ApiError('gone', 'The connection broke off before the answer was whole.');
}
