/* Inline Markdown to nodes: strings and { tag, attributes, children }. Nothing is ever read as HTML.
 *
 * With `open` the text is the end of an answer that is still coming: what is begun and not yet ended counts as ended
 * here, and a marker that may be half of a longer one is held back. So nothing shows raw and changes later.
 *
 * Time is linear in the text, whatever it is: each delimiter is looked at from its closer once, runs of backticks are
 * found by a table, and link targets have a greatest length. */

const MAX_DEPTH = 12;  /* of emphasis in emphasis */
const MAX_RUN = 12;    /* of * or _ that can be emphasis */
const MAX_HALF = 32;   /* of a marker that is held back */
const SPECIAL = /[^\\`*_~[\]!<&\nh]+/y;
const BARE_URL = /https?:\/\/[^\s<>"`*\]]{1,2000}/iy;
const ANGLE_URL = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/iy;
const ADDRESS = String.raw`<([^<>\n]{0,2000})>|((?:[^\s()]|\([^\s()]{0,500}\)){0,2000})`;
const TITLE = String.raw`"[^"\n]{0,500}"|'[^'\n]{0,500}'`;
const TARGET = new RegExp(String.raw`\(\s{0,9}(?:${ADDRESS})(?:\s{1,9}(?:${TITLE}))?\s{0,9}\)`, 'y');
const BREAK = /<br\s?\/?>/iy;
const ENTITY = /&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7}|#x[\da-f]{1,6});/iy;
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0' };
const PUNCTUATION = /[\p{P}\p{S}]/u;
const HALF_MARKER = /(?:[*_~`]+|!?\[|\\|&[#\w]{0,8}|<[a-z]{0,2}\/?)$/i;

export const node = (tag, attributes, children) => ({ tag, attributes, children });

/* Only these lead out of the page; anything else is no link. */
export function safeTarget(target) {
    const clean = target.trim().replace(/[\u0000-\u001f\u007f-\u009f]/g, '').replaceAll(' ', '%20');
    return /^(?:https?:\/\/|mailto:)/i.test(clean) ? clean : null;
}

const link = (target, children) =>
    node('a', { href: target, target: '_blank', rel: 'noopener noreferrer nofollow' }, children);

const depthOf = (children) => children.reduce((most, child) => Math.max(most, child.depth || 0), 0);

const withoutLinks = (children) => children.flatMap((child) => (child.tag === 'a' ? child.children : [child]));

function decodeEntity(text) {
    const name = text.slice(1, -1).toLowerCase();
    if (name[0] !== '#') {
        return ENTITIES[name];
    }
    const code = name[1] === 'x' ? parseInt(name.slice(2), 16) : parseInt(name.slice(1), 10);
    return code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : '\ufffd';
}

/* Runs of backticks by length, in order. */
function backtickRuns(text) {
    const runs = new Map();
    for (const match of text.matchAll(/`+/g)) {
        const list = runs.get(match[0].length) || { at: [], next: 0 };
        list.at.push(match.index);
        runs.set(match[0].length, list);
    }
    return runs;
}

class Inline {
    constructor(text, open) {
        this.text = open ? text.slice(0, -MAX_HALF) + text.slice(-MAX_HALF).replace(HALF_MARKER, '') : text;
        this.open = open;
        this.at = 0;
        this.out = [];         /* nodes; delimiters and brackets stand here as objects with .raw until the end */
        this.delimiters = [];  /* { raw, char, count, inWord, place: index in out } */
        this.brackets = [];    /* { raw, place, delimiters: how many there were, floors, active } */
        this.floors = new Map(); /* kind of closer: delimiters below have no opener for it; brackets have their own */
        this.lastTarget = this.text.lastIndexOf('](');
        this.ticks = backtickRuns(this.text);
    }

    parse() {
        while (this.at < this.text.length) {
            this.step();
        }
        if (this.open) {
            this.closeAll();
        }
        return joined(this.out);
    }

    match(pattern) {
        pattern.lastIndex = this.at;
        return pattern.exec(this.text);
    }

    put(item, length) {
        this.out.push(item);
        this.at += length;
    }

    step() {
        const char = this.text[this.at];
        switch (char) {
        case '\\': return this.escape();
        case '`': return this.code();
        case '*':
        case '_':
        case '~': return this.delimiter(char);
        case '[': return this.bracket('[');
        case '!': return this.text[this.at + 1] === '[' ? this.bracket('![') : this.put('!', 1);
        case ']': return this.closeBracket();
        case '<': return this.angle();
        case '&': return this.entity();
        case '\n': return this.put(node('br', {}, []), 1);
        case 'h': return this.bareUrl();
        default: {
            const plain = this.match(SPECIAL);
            return this.put(plain[0], plain[0].length);
        }
        }
    }

    escape() {
        const next = this.text[this.at + 1];
        if (next === '\n') {
            return this.put(node('br', {}, []), 2);
        }
        const punctuation = next !== undefined && next < '\x7f' && PUNCTUATION.test(next);
        return punctuation ? this.put(next, 2) : this.put('\\', 1);
    }

    code() {
        let end = this.at;
        while (this.text[end] === '`') {
            end++;
        }
        const length = end - this.at;
        const runs = this.ticks.get(length) || { at: [], next: 0 };
        while (runs.next < runs.at.length && runs.at[runs.next] < end) {
            runs.next++;
        }
        const closer = runs.at[runs.next];
        if (closer === undefined && !this.open) {
            return this.put('`'.repeat(length), length);
        }
        let inside = this.text.slice(end, closer).replace(/\n/g, ' ');
        if (inside.startsWith(' ') && inside.endsWith(' ') && inside.trim()) {
            inside = inside.slice(1, -1);
        }
        const past = closer === undefined ? this.text.length : closer + length;
        return this.put(node('code', {}, [inside]), past - this.at);
    }

    angle() {
        const url = this.match(ANGLE_URL);
        if (url) {
            return this.put(link(url[1], [url[1].replace(/^mailto:/i, '')]), url[0].length);
        }
        const br = this.match(BREAK);
        return br ? this.put(node('br', {}, []), br[0].length) : this.put('<', 1);
    }

    entity() {
        const found = this.match(ENTITY);
        return found ? this.put(decodeEntity(found[0]), found[0].length) : this.put('&', 1);
    }

    bareUrl() {
        const before = this.text[this.at - 1];
        const found = before === undefined || !/[\p{L}\p{N}_]/u.test(before) ? this.match(BARE_URL) : null;
        if (!found) {
            return this.put('h', 1);
        }
        let url = found[0].replace(/[.,;:!?'_~]+$/, '');
        if (url.endsWith(')') && !url.includes('(')) {
            url = url.replace(/\)+[.,;:!?]*$/, '');
        }
        return /^https?:\/\/./i.test(url) ? this.put(link(url, [url]), url.length) : this.put(url, url.length);
    }

    delimiter(char) {
        let end = this.at;
        while (this.text[end] === char) {
            end++;
        }
        const count = end - this.at;
        const raw = char.repeat(count);
        const before = this.at ? this.text[this.at - 1] : ' ';
        const after = end < this.text.length ? this.text[end] : ' ';
        const space = [/\s/.test(before), /\s/.test(after)];
        const mark = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
        const left = !space[1] && (!mark[1] || space[0] || mark[0]);
        const right = !space[0] && (!mark[0] || space[1] || mark[1]);
        const opens = char === '_' ? left && (!right || mark[0]) : left;
        const closes = char === '_' ? right && (!left || mark[1]) : right;
        this.at = end;
        if (count > MAX_RUN || (char === '~' && count !== 2)) {
            this.out.push(raw);
            return;
        }
        const rest = closes ? this.close(char, count, opens) : count;
        if (!rest) {
            return;
        }
        const inWord = count === 1 && !space[0] && !mark[0];
        const item = { raw: char.repeat(rest), char, count: rest, inWord, place: this.out.length };
        this.out.push(item);
        if (opens) {
            this.delimiters.push(item);
        }
    }

    /* Ends emphasis with `count` of char, as many as have openers; what is left. */
    close(char, count, opens) {
        let left = count;
        while (left > 0) {
            const kind = `${char}${opens}${left % 3}`;
            const scope = this.scope();
            const lowest = Math.max(scope.delimiters, scope.floors.get(kind) || 0);
            let i = this.delimiters.length - 1;
            while (i >= lowest && !this.pairs(this.delimiters[i], char, left, opens)) {
                i--;
            }
            if (i < lowest) {
                scope.floors.set(kind, this.delimiters.length);
                return left;
            }
            const used = this.wrap(i, left);
            if (!used) {
                return left;
            }
            left -= used;
        }
        return left;
    }

    /* Emphasis that begins outside of a link's text may not end inside: the bracket that limits it. */
    scope() {
        const last = this.brackets[this.brackets.length - 1];
        return last && this.at <= this.lastTarget ? last : { delimiters: 0, floors: this.floors };
    }

    pairs(opener, char, count, closerOpens) {
        if (opener.char !== char) {
            return false;
        }
        return !closerOpens || (opener.count + count) % 3 !== 0 || (opener.count % 3 === 0 && count % 3 === 0);
    }

    /* Makes one element of all that stands behind delimiter i; how many of its characters that took. */
    wrap(i, count) {
        const opener = this.delimiters[i];
        const used = opener.char === '~' ? 2 : Math.min(2, opener.count, count);
        const children = this.out.slice(opener.place + 1);
        const depth = depthOf(children) + 1;
        if (depth > MAX_DEPTH) {
            this.delimiters.length = 0; /* whatever ended later would be deeper still */
            this.lowerFloors();
            return 0;
        }
        this.out.length = opener.place + 1;
        const tag = opener.char === '~' ? 'del' : used === 2 ? 'strong' : 'em';
        this.out.push({ tag, attributes: {}, children: joined(children), depth });
        opener.count -= used;
        opener.raw = opener.char.repeat(opener.count);
        this.delimiters.length = opener.count ? i + 1 : i;
        this.lowerFloors();
        return used;
    }

    lowerFloors() {
        const { floors } = this.scope();
        for (const [kind, at] of floors) {
            floors.set(kind, Math.min(at, this.delimiters.length));
        }
    }

    bracket(raw) {
        const { length } = this.delimiters;
        const item = { raw, place: this.out.length, delimiters: length, floors: new Map(), active: true };
        this.brackets.push(item);
        this.put(item, raw.length);
    }

    closeBracket() {
        const opener = this.brackets.pop();
        const atEnd = this.at + 1 >= this.text.length;
        if (!opener || !opener.active) {
            return this.put(']', 1);
        }
        if (this.open && atEnd) {
            opener.raw = '';
            this.at++;
            return undefined;
        }
        this.at++;
        const target = this.match(TARGET);
        const coming = !target && this.open && this.text[this.at] === '(' && !/[\s)]/.test(this.text.slice(this.at));
        if (!target && !coming) {
            this.out.push(']');
            return undefined;
        }
        const children = withoutLinks(joined(this.out.slice(opener.place + 1)));
        this.out.length = opener.place;
        this.delimiters.length = Math.min(this.delimiters.length, opener.delimiters);
        this.lowerFloors();
        this.putLink(coming ? null : safeTarget(target[1] ?? target[2]), children);
        this.at += coming ? this.text.length - this.at : target[0].length;
        return undefined;
    }

    putLink(target, children) {
        if (!target) {
            this.out.push(...children);
            return;
        }
        this.out.push({ ...link(target, children), depth: depthOf(children) });
        for (const bracket of this.brackets) {
            bracket.active = false;
        }
        this.brackets.length = 0;
    }

    /* The end of a text that goes on: all that is open counts as closed. */
    closeAll() {
        for (const bracket of this.brackets) {
            bracket.raw = bracket.active ? '' : bracket.raw;
        }
        for (let i = this.delimiters.length - 1; i >= 0; i--) {
            const opener = this.delimiters[i];
            while (opener.count && !opener.inWord && this.out.length > opener.place + 1) {
                if (!this.wrap(i, opener.count)) {
                    return;
                }
            }
        }
    }
}

/* Strings side by side become one; what never became a delimiter or bracket is text. */
function joined(items) {
    const result = [];
    for (const item of items) {
        const text = typeof item === 'string' ? item : item.raw;
        if (text === undefined) {
            result.push(item);
        } else if (typeof result[result.length - 1] === 'string') {
            result[result.length - 1] += text;
        } else if (text) {
            result.push(text);
        }
    }
    return result;
}

export const parseInline = (text, open = false) => new Inline(text, open).parse();
