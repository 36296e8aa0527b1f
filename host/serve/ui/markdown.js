/* Markdown of answers to elements, while it arrives.
 *
 * CommonMark and tables as models write them. On purpose otherwise: HTML is text; a newline is a line break; `---` is
 * always a rule, never makes the line above a heading, which would jump while streaming; images are links.
 *
 * A MarkdownView keeps the elements of an answer. All top-level blocks but the last can no longer change when text is
 * appended, so each update parses from the last one on, and changes only the elements that differ. */
import { highlight } from './highlight.js';
import { node, parseInline } from './inline.js';

const MAX_DEPTH = 12;   /* of lists and quotes in each other; deeper is text */
const MAX_COLUMNS = 64;

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const MARKER = /^( {0,3})([-*+]|\d{1,9}[.)])(?: {1,4}(?=\S)| *$| )/;
const HALF_LINE = /(?:^|\n)[ >]*(?:[-*+]|\d{1,9}[.)]?|#{1,6}|>|[-*_=]+|`{1,2}|~{1,2}|\|) *$/;

const indentOf = (line) => line.length - line.trimStart().length;
const blank = (line) => line.trim() === '';

function expandTabs(line) {
    const lead = /^[ \t]*/.exec(line)[0];
    return lead.includes('\t') ? lead.replace(/\t/g, '    ') + line.slice(lead.length) : line;
}

/* ---- tables ---- */

function cellsOf(line) {
    const cells = [];
    let cell = '';
    let ticks = false;
    const text = line.trim().replace(/^\|/, '');
    for (let i = 0; i < text.length; i++) {
        if (text[i] === '\\' && text[i + 1] === '|') {
            cell += '|';
            i++;
        } else if (text[i] === '|' && !ticks) {
            cells.push(cell.trim());
            cell = '';
        } else {
            ticks = text[i] === '`' ? !ticks && text.indexOf('`', i + 1) > 0 : ticks;
            cell += text[i];
        }
    }
    if (cell.trim()) {
        cells.push(cell.trim());
    }
    return cells;
}

const ruleCells = (line) => {
    const cells = line.includes('-') ? cellsOf(line) : [];
    return cells.length && cells.every((cell) => /^:?-+:?$/.test(cell)) ? cells : null;
};

function alignments(cells) {
    return cells.map((cell) => ({ '::': 'center', '-:': 'end', ':-': 'start' })[cell[0] + cell[cell.length - 1]]);
}

/* Whether a table begins at lines[i]. One whose second line is still to come is taken for one at once. */
function tableAt(lines, i, open) {
    if (!lines[i].includes('|')) {
        return null;
    }
    const next = lines[i + 1];
    const partial = open && lines[i].trimStart()[0] === '|' &&
        (next === undefined || (i + 2 === lines.length && /^[\s|:-]*$/.test(next)));
    const rule = next === undefined ? null : ruleCells(next);
    const head = partial || rule ? cellsOf(lines[i]) : [];
    if (partial && (!rule || rule.length !== head.length)) {
        return { head, align: [] };
    }
    return rule && rule.length === head.length && head.length <= MAX_COLUMNS ? { head, align: alignments(rule) } : null;
}

function row(tag, cells, { head, align }, open) {
    return node('tr', {}, head.map((_, i) => {
        const side = align[i] && { class: `align-${align[i]}` };
        const scope = tag === 'th' && { scope: 'col' };
        const children = parseInline(cells[i] || '', open && i === cells.length - 1);
        return node(tag, { dir: 'auto', ...side, ...scope }, children);
    }));
}

function table(lines, start, found, open) {
    let end = Math.min(start + 2, lines.length);
    const rows = [];
    while (end < lines.length && !blank(lines[end]) && !beginsOther(lines[end])) {
        const last = open && end === lines.length - 1;
        rows.push(row('td', cellsOf(lines[end]), found, last));
        end++;
    }
    const parts = [node('thead', {}, [row('th', found.head, found, open && end === lines.length && !rows.length)])];
    if (rows.length) {
        parts.push(node('tbody', {}, rows));
    }
    const made = node('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Table' },
        [node('table', {}, parts)]);
    return [made, end];
}

/* ---- code ---- */

function codeBlock(text, language) {
    const span = ([kind, part]) => (kind ? node('span', { class: `hl-${kind}` }, [part]) : part);
    const spans = highlight(text, language).map(span);
    const label = language || 'text';
    return node('figure', { class: 'code', dir: 'ltr' }, [
        node('figcaption', {}, [
            node('span', { class: 'language' }, [label]),
            node('button', { type: 'button', class: 'copy-code', 'aria-label': 'Copy code' }, ['Copy']),
        ]),
        node('pre', { tabindex: '0', 'aria-label': `Code: ${label}` }, [node('code', {}, spans)]),
    ]);
}

function fence(lines, start, found, open) {
    const indent = indentOf(lines[start]);
    const mark = found[1];
    const closes = (line) => {
        const text = line.trim();
        return text.length >= mark.length && indentOf(line) < 4 && text === mark[0].repeat(text.length);
    };
    let end = start + 1;
    const body = [];
    while (end < lines.length && !closes(lines[end])) {
        body.push(lines[end].slice(Math.min(indent, indentOf(lines[end]))));
        end++;
    }
    const half = body[body.length - 1]?.trim();
    if (open && end === lines.length && half !== undefined && half === mark[0].repeat(half.length)) {
        body.pop();
    }
    return [codeBlock(body.join('\n'), found[2].trim().split(/[\s{]/)[0].slice(0, 24)), end + 1];
}

function indentedCode(lines, start) {
    let end = start;
    while (end < lines.length && (blank(lines[end]) || indentOf(lines[end]) >= 4)) {
        end++;
    }
    while (blank(lines[end - 1])) {
        end--;
    }
    return [codeBlock(lines.slice(start, end).map((line) => line.slice(4)).join('\n'), ''), end];
}

/* ---- blocks that hold blocks ---- */

function beginsOther(line) {
    const marker = MARKER.exec(line);
    return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
        (marker && marker[0].length < line.length && (!/^\d/.test(marker[2]) || /^1[.)]/.test(marker[2])));
}

function quote(lines, start, depth, open) {
    let end = start;
    const inside = [];
    while (end < lines.length && (QUOTE.test(lines[end]) || (!blank(lines[end]) && !beginsOther(lines[end])))) {
        inside.push(lines[end].replace(QUOTE, ''));
        end++;
    }
    return [node('blockquote', { dir: 'auto' }, blocks(inside, depth + 1, open && end === lines.length)), end];
}

/* The lines of the list's item that begins at start, without marker and indentation. */
function itemLines(lines, start, marker) {
    const content = marker[0].length;
    const least = Math.min(content, marker[1].length + 2);
    const inside = [lines[start].slice(content)];
    let end = start + 1;
    while (end < lines.length) {
        const line = lines[end];
        const deep = indentOf(line) >= least;
        const lazy = !blank(lines[end - 1]) && !beginsOther(line) && !MARKER.test(line);
        if (!blank(line) && !deep && !lazy) {
            break;
        }
        inside.push(line.slice(Math.min(content, indentOf(line))));
        end++;
    }
    while (inside.length > 1 && blank(inside[inside.length - 1])) {
        inside.pop();
        end--;
    }
    return [inside, end];
}

function withTask(children) {
    const first = children[0];
    const text = first?.tag === 'p' ? first.children[0] : undefined;
    const task = typeof text === 'string' ? /^\[([ xX])\] /.exec(text) : null;
    if (task) {
        const done = task[1] !== ' ';
        const label = done ? 'done' : 'to do';
        const box = node('span', { class: 'task', role: 'img', 'aria-label': label }, [done ? '☑' : '☐']);
        first.children.splice(0, 1, box, text.slice(task[0].length));
    }
    return children;
}

function list(lines, start, depth, open) {
    const first = MARKER.exec(lines[start]);
    const kind = first[2].slice(-1);
    const items = [];
    let end = start;
    let next = start;
    while (next < lines.length) {
        const marker = MARKER.exec(lines[next]);
        if (!marker || marker[2].slice(-1) !== kind || RULE.test(lines[next])) {
            break;
        }
        const [inside, stop] = itemLines(lines, next, marker);
        items.push(node('li', { dir: 'auto' }, withTask(blocks(inside, depth + 1, open && stop === lines.length))));
        end = stop;
        next = stop;
        while (next < lines.length && blank(lines[next])) {
            next++;
        }
    }
    const number = parseInt(first[2], 10);
    const made = Number.isNaN(number) ? node('ul', {}, items)
        : node('ol', number === 1 ? {} : { start: String(number) }, items);
    return [made, end];
}

/* ---- the rest ---- */

function heading(line, found, open) {
    let text = line.slice(found[0].length).trim();
    const bare = text.replace(/#+$/, '');
    if (bare === '' || bare.endsWith(' ')) {
        text = bare.trimEnd();
    }
    /* The page has headings of its own: h1 and h2. */
    const level = found[1].length;
    return node(`h${Math.min(level + 2, 6)}`, { dir: 'auto', class: `level-${level}` }, parseInline(text, open));
}

function paragraph(lines, start, open) {
    let end = start + 1;
    while (end < lines.length && !blank(lines[end]) && !beginsOther(lines[end]) && !tableAt(lines, end, open)) {
        end++;
    }
    const text = lines.slice(start, end).map((line) => line.trim()).join('\n');
    return [node('p', { dir: 'auto' }, parseInline(text, open && end === lines.length)), end];
}

function blockAt(lines, i, depth, open) {
    const line = lines[i];
    const nested = depth < MAX_DEPTH;
    let found;
    if ((found = FENCE.exec(line))) {
        return fence(lines, i, found, open);
    }
    if ((found = HEADING.exec(line))) {
        return [heading(line, found, open && i === lines.length - 1), i + 1];
    }
    if (RULE.test(line)) {
        return [node('hr', {}, []), i + 1];
    }
    if (nested && QUOTE.test(line)) {
        return quote(lines, i, depth, open);
    }
    if (nested && MARKER.test(line)) {
        return list(lines, i, depth, open);
    }
    if (indentOf(line) >= 4) {
        return indentedCode(lines, i);
    }
    found = tableAt(lines, i, open);
    return found ? table(lines, i, found, open) : paragraph(lines, i, open);
}

/* Nodes of all blocks; each top-level one knows the line it begins at. */
function blocks(lines, depth, open) {
    const result = [];
    let i = 0;
    while (i < lines.length) {
        if (blank(lines[i])) {
            i++;
            continue;
        }
        const [made, end] = blockAt(lines, i, depth, open);
        made.line = i;
        result.push(made);
        i = end;
    }
    return result;
}

export function parseMarkdown(text, open = false) {
    const source = open ? text.replace(HALF_LINE, '') : text;
    return blocks(source.split('\n').map(expandTabs), 0, open);
}

/* ---- nodes to elements ---- */

function build(item) {
    if (typeof item === 'string') {
        return document.createTextNode(item);
    }
    const made = document.createElement(item.tag);
    for (const [name, value] of Object.entries(item.attributes)) {
        made.setAttribute(name, value);
    }
    made.append(...item.children.map(build));
    return made;
}

const fits = (element, item) =>
    typeof item === 'string' ? element.nodeType === Node.TEXT_NODE : element.localName === item.tag;

function patch(element, item) {
    if (typeof item === 'string') {
        if (item.startsWith(element.data)) {
            element.appendData(item.slice(element.data.length)); /* keeps what is selected */
        } else {
            element.data = item;
        }
        return;
    }
    for (const { name } of [...element.attributes]) {
        if (!(name in item.attributes)) {
            element.removeAttribute(name);
        }
    }
    for (const [name, value] of Object.entries(item.attributes)) {
        if (element.getAttribute(name) !== value) {
            element.setAttribute(name, value);
        }
    }
    patchChildren(element, item.children, 0);
}

/* Makes the children of parent from the first-th on equal to items, keeping what already is. */
function patchChildren(parent, items, first) {
    let child = parent.childNodes[first];
    for (const item of items) {
        if (!child) {
            parent.append(build(item));
        } else if (fits(child, item)) {
            patch(child, item);
            child = child.nextSibling;
        } else {
            const made = build(item);
            child.replaceWith(made);
            child = made.nextSibling;
        }
    }
    while (child) {
        const next = child.nextSibling;
        child.remove();
        child = next;
    }
}

export class MarkdownView {
    constructor(host) {
        this.host = host;
        this.settled = '';      /* source of the blocks that stay as they are */
        this.settledBlocks = 0;
    }

    /* open: more is coming. */
    update(source, open = false) {
        const text = source.replace(/\r\n?/g, '\n').replace(/\0/g, '\ufffd');
        if (!text.startsWith(this.settled)) {
            this.settled = '';
            this.settledBlocks = 0;
        }
        const rest = text.slice(this.settled.length);
        const parsed = parseMarkdown(rest, open);
        patchChildren(this.host, parsed, this.settledBlocks);
        if (parsed.length > 1) {
            this.settle(rest, parsed);
        }
    }

    settle(rest, parsed) {
        let offset = 0;
        for (let line = parsed[parsed.length - 1].line; line > 0; line--) {
            offset = rest.indexOf('\n', offset) + 1;
        }
        this.settled += rest.slice(0, offset);
        this.settledBlocks += parsed.length - 1;
    }
}
