/* The messages of a chat on the page: their elements, which of them exist, and the scroll position.
 *
 * Only the last messages of a long chat are made; earlier ones when they come near. The view follows the end while it
 * is there, and stays where it is otherwise. */
import { $, element, icon, iconButton } from './dom.js';
import { showMedia } from './attach.js';
import { MarkdownView } from './markdown.js';

const FIRST_SHOWN = 40;
const MORE = 30;
const NEAR_END = 48; /* pixels */
const LIVE_TAIL = 12; /* messages at the end that are always laid out */

const counted = new Intl.NumberFormat('en');
const rate = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/* What tells how an answer came to be. */
export function servedText(message) {
    const { served, usage } = message;
    const parts = [];
    if (served?.path) {
        parts.push(served.reason ? `${served.path} (${served.reason})` : served.path);
    }
    if (served?.tokens_per_second) {
        parts.push(`${rate.format(served.tokens_per_second)} tokens/s`);
    }
    if (usage?.completion_tokens) {
        parts.push(`${counted.format(usage.completion_tokens)} tokens`);
    }
    if (message.status === 'stopped') {
        parts.push('stopped');
    }
    return parts.join(' · ');
}

/* And more of it, for who points at it. */
function servedDetail({ served, usage }) {
    const parts = [];
    if (usage) {
        parts.push(`${counted.format(usage.prompt_tokens)} tokens of prompt`);
    }
    if (served?.reused) {
        parts.push(`${counted.format(served.reused)} of them known from before`);
    }
    if (served?.prompt_ms !== undefined) {
        parts.push(`read in ${counted.format(Math.round(served.prompt_ms))} ms`);
    }
    if (served?.queued_ms >= 1) {
        parts.push(`waited ${counted.format(Math.round(served.queued_ms))} ms`);
    }
    if (served?.moved) {
        parts.push(`changed its path ${served.moved} times`);
    }
    return parts.join(', ');
}

function liveText(progress) {
    if (progress.waited !== undefined) {
        return progress.waited < 1 ? '' : `waiting ${Math.round(progress.waited)} s`;
    }
    return progress.rate ? `${rate.format(progress.rate)} tokens/s · ${progress.tokens} tokens` : '';
}

/* One message. act: what its buttons do, see Thread. */
class MessageView {
    constructor(message, act) {
        this.message = message;
        this.act = act;
        this.body = element('div', { class: 'body', dir: 'auto' });
        this.problem = element('div', { class: 'problem-place' });
        this.pager = element('span', { class: 'pager' });
        this.note = element('span', { class: 'note' });
        this.foot = element('footer', {}, this.pager, this.buttons(), this.note);
        const mine = message.role === 'user';
        const shown = element('div', { class: 'shown' }, ...(message.media || []).map((media) => showMedia(media)));
        this.root = element('article', {
            class: `message ${message.role}`, id: `m-${message.id}`, 'aria-label': mine ? 'You' : 'Answer',
        }, message.media ? shown : null, this.body, this.problem, this.foot);
        this.shownProblem = '';
        this.markdown = mine ? null : new MarkdownView(this.body);
    }

    buttons() {
        const { message, act } = this;
        const special = message.role === 'user'
            ? iconButton('edit', 'Edit', () => act.edit(message))
            : iconButton('again', 'Answer again', () => act.again(message));
        return element('span', { class: 'actions' },
            iconButton('copy', 'Copy', (event) => act.copy(message, event.currentTarget)), special,
            iconButton('delete', 'Delete from here on', () => act.remove(message)));
    }

    update(siblings, progress) {
        const { message } = this;
        const live = message.status === 'streaming' && progress !== null;
        this.root.classList.toggle('live', live);
        this.root.setAttribute('aria-busy', String(live));
        this.showText(live);
        this.showPager(siblings, live);
        this.showProblem(live);
        const note = live ? liveText(progress) : servedText(message);
        if (this.note.textContent !== note) {
            this.note.textContent = note;
            this.note.title = live ? '' : servedDetail(message);
        }
    }

    showText(live) {
        const { message } = this;
        if (this.editing) {
            return;
        }
        if (!this.markdown) {
            this.body.hidden = message.text === '';
            if (this.body.textContent !== message.text) {
                this.body.textContent = message.text;
            }
            return;
        }
        if (this.shownText !== message.text || this.shownLive !== live) {
            this.markdown.update(message.text, live);
            this.shownText = message.text;
            this.shownLive = live;
        }
        this.root.classList.toggle('empty', live && message.text === '');
    }

    showPager(siblings, live) {
        const at = siblings.indexOf(this.message);
        const shown = siblings.length < 2 ? '' : `${at + 1} / ${siblings.length}`;
        if (this.pager.dataset.shown === `${shown}${live}`) {
            return;
        }
        this.pager.dataset.shown = `${shown}${live}`;
        const turn = (name, label, to) => iconButton(name, label, () => this.act.pick(to), { disabled: !to || live });
        this.pager.replaceChildren(...(shown ? [
            turn('left', 'Previous version', siblings[at - 1]),
            element('span', {}, shown),
            turn('right', 'Next version', siblings[at + 1]),
        ] : []));
    }

    problemOf(live) {
        const { message } = this;
        if (live) {
            return null;
        }
        if (message.status === 'streaming') {
            return { kind: 'broken', text: 'This answer was interrupted.' };
        }
        if (message.status === 'done' && message.finish === 'length') {
            return { kind: 'length', text: 'The answer ends here because it reached the greatest length.' };
        }
        return message.problem || null;
    }

    showProblem(live) {
        const problem = this.problemOf(live);
        const key = problem ? `${problem.until || ''} ${problem.text}` : '';
        if (key === this.shownProblem) {
            return;
        }
        this.shownProblem = key;
        clearInterval(this.countdown);
        this.problem.replaceChildren();
        if (!problem) {
            return;
        }
        const { message, act } = this;
        const button = (label, onclick) => element('button', { type: 'button', onclick }, label);
        const buttons = {
            key: [button('Enter the key', () => act.key())],
            context: [
                button('Leave out the oldest messages', () => act.cut(message)),
                button('New chat', () => act.newChat()),
            ],
            length: [],
        }[problem.kind] || [button(problem.until ? 'Try now' : 'Try again', () => act.retry(message))];
        const wait = element('span', { class: 'wait', 'aria-hidden': 'true' });
        const role = problem.kind === 'length' ? 'note' : 'alert';
        const box = element('div', { class: `problem ${problem.kind}`, role },
            element('p', {}, problem.text, ' ', wait), element('div', { class: 'buttons' }, ...buttons));
        this.problem.append(box);
        if (problem.until) {
            this.count(problem, wait);
        }
    }

    count(problem, wait) {
        const show = () => {
            const left = Math.ceil((problem.until - Date.now()) / 1000);
            wait.textContent = left > 0 ? `Trying again in ${left} s.` : '';
        };
        show();
        this.countdown = setInterval(show, 1000);
    }

    edit(done) {
        const area = element('textarea', { 'aria-label': 'Your message', rows: '3', dir: 'auto' });
        area.value = this.message.text;
        const close = () => {
            this.editing = false;
            this.body.replaceChildren();
            this.showText(false);
        };
        const finish = (text) => {
            close();
            done(text);
        };
        const save = () => (area.value.trim() || this.message.media) && finish(area.value);
        area.addEventListener('keydown', (event) => {
            if (event.key === 'Escape') {
                event.stopPropagation();
                finish(null);
            } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
                event.preventDefault();
                save();
            }
        });
        this.editing = true;
        this.body.hidden = false;
        const onsubmit = (event) => {
            event.preventDefault();
            save();
        };
        const buttons = element('div', { class: 'buttons' },
            element('button', { type: 'button', onclick: () => finish(null) }, 'Cancel'),
            element('button', { type: 'submit', class: 'primary' }, 'Send'));
        this.body.replaceChildren(element('form', { class: 'edit', onsubmit }, area, buttons));
        area.focus();
        area.setSelectionRange(area.value.length, area.value.length);
    }
}

export class Thread {
    /* act: edit, again, copy, remove, pick, retry, key, cut, newChat: each of a message; progress(message) */
    constructor(scroller, list, act, progress) {
        Object.assign(this, { scroller, list, act, progress });
        this.views = new Map();
        this.first = 0;
        this.following = true;
        this.dirty = new Set();
        const onclick = () => this.showEarlier();
        this.earlier = element('button', { type: 'button', class: 'earlier', onclick }, 'Show earlier messages');
        this.divider = element('p', { class: 'cut', role: 'note' }, icon('cut'),
            'Messages above are no longer sent: the context is full.');
        this.toEnd = $('#to-end');
        this.toEnd.addEventListener('click', () => this.goToEnd(true));
        scroller.addEventListener('scroll', () => this.scrolled(), { passive: true });
        new ResizeObserver(() => this.keepEnd()).observe(scroller);
    }

    /* Shows another chat, at its end. */
    open(chat) {
        this.chat = chat;
        this.views.clear();
        this.dirty.clear();
        this.list.replaceChildren();
        this.branch = chat.branch();
        this.first = Math.max(0, this.branch.length - FIRST_SHOWN);
        this.following = true;
        this.arrange();
        requestAnimationFrame(() => this.keepEnd());
    }

    /* After messages came, went, or other ones were picked. */
    refresh() {
        this.branch = this.chat.branch();
        this.first = Math.min(this.first, Math.max(0, this.branch.length - 1));
        this.arrange();
    }

    viewOf(message) {
        const known = this.views.get(message.id);
        if (known) {
            return known;
        }
        const made = new MessageView(message, this.act);
        this.views.set(message.id, made);
        return made;
    }

    arrange() {
        const shown = this.branch.slice(this.first);
        const wanted = this.first > 0 ? [this.earlier] : [];
        shown.forEach((message, i) => {
            const view = this.viewOf(message);
            view.update(this.chat.siblings(message), this.progress(message));
            view.root.classList.toggle('far', i < shown.length - LIVE_TAIL);
            if (message.id === this.chat.meta.cut) {
                wanted.push(this.divider);
            }
            wanted.push(view.root);
        });
        this.place(wanted);
        this.keepEnd();
    }

    /* Puts exactly these elements into the list, without touching those that are in place. */
    place(wanted) {
        const keep = new Set(wanted);
        for (const child of [...this.list.children]) {
            if (!keep.has(child)) {
                child.remove();
            }
        }
        wanted.forEach((child, i) => {
            if (this.list.children[i] !== child) {
                this.list.insertBefore(child, this.list.children[i] || null);
            }
        });
        for (const [id, view] of this.views) {
            if (!view.root.isConnected) {
                clearInterval(view.countdown);
                this.views.delete(id);
            }
        }
    }

    /* A message has changed: it is drawn with the next frame, however often it changes before. */
    changed(message) {
        if (!this.views.has(message.id)) {
            return;
        }
        if (!this.dirty.size) {
            const draw = () => this.draw();
            document.hidden ? setTimeout(draw, 250) : requestAnimationFrame(draw);
        }
        this.dirty.add(message);
    }

    draw() {
        for (const message of this.dirty) {
            this.views.get(message.id)?.update(this.chat.siblings(message), this.progress(message));
        }
        this.dirty.clear();
        this.keepEnd();
    }

    atEnd() {
        const { scrollHeight, scrollTop, clientHeight } = this.scroller;
        return scrollHeight - scrollTop - clientHeight < NEAR_END;
    }

    scrolled() {
        /* Only going up ends the following: content that grows faster than it is scrolled to does not. */
        const { scrollTop } = this.scroller;
        const up = scrollTop < (this.lastTop ?? 0) - 1;
        this.lastTop = scrollTop;
        this.following = this.atEnd() || (this.following && !up);
        this.toEnd.classList.toggle('shown', !this.following);
        if (scrollTop < 400 && this.first > 0 && !this.following) {
            this.showEarlier();
        }
    }

    keepEnd() {
        if (this.following) {
            this.goToEnd(false);
        } else {
            this.toEnd.classList.toggle('shown', !this.atEnd());
        }
    }

    goToEnd(smooth) {
        const calm = !smooth || matchMedia('(prefers-reduced-motion: reduce)').matches;
        this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: calm ? 'instant' : 'smooth' });
    }

    /* Makes more messages above, which moves nothing that is seen. */
    showEarlier() {
        const anchor = this.list.querySelector('.message');
        const before = anchor.getBoundingClientRect().top;
        this.scroller.classList.add('prepending');
        this.first = Math.max(0, this.first - MORE);
        this.arrange();
        this.scroller.scrollTop += anchor.getBoundingClientRect().top - before;
        this.lastTop = this.scroller.scrollTop;
        requestAnimationFrame(() => this.scroller.classList.remove('prepending'));
    }

    edit(message, done) {
        this.viewOf(message).edit(done);
    }
}
