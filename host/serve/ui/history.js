/* The list of chats at the side: groups by age, search, rename, delete. */
import { $, element, iconButton } from './dom.js';

const DAY = 24 * 3600 * 1000;
const SEARCH_MS = 150;

function groupOf(time) {
    const midnight = new Date().setHours(0, 0, 0, 0);
    const ages = [[midnight, 'Today'], [midnight - DAY, 'Yesterday'], [midnight - 7 * DAY, 'Last seven days']];
    return ages.find(([from]) => time >= from)?.[1] || 'Earlier';
}

export class History {
    /* on: open(id), create(), rename(meta, title), remove(meta) */
    constructor(store, on) {
        Object.assign(this, { store, on, present: null, metas: [], found: null });
        this.list = $('#history');
        this.box = $('#search');
        this.box.addEventListener('input', () => {
            clearTimeout(this.timer);
            this.timer = setTimeout(() => this.search(), SEARCH_MS);
        });
        this.box.addEventListener('keydown', (event) => this.boxKey(event));
        this.list.addEventListener('keydown', (event) => this.listKey(event));
    }

    async reload() {
        this.metas = await this.store.list();
        await this.search();
    }

    async search() {
        const query = this.box.value.trim();
        this.found = query ? await this.store.search(query) : null;
        this.draw();
    }

    setPresent(id, running = new Set()) {
        this.present = id;
        this.running = running;
        this.draw();
    }

    draw() {
        const focused = document.activeElement?.closest?.('#history li')?.dataset.id;
        const shown = this.metas.filter((meta) => !this.found || this.found.has(meta.id));
        const groups = new Map();
        for (const meta of shown) {
            const name = groupOf(meta.updated);
            groups.has(name) || groups.set(name, []);
            groups.get(name).push(this.item(meta));
        }
        const none = this.found ? 'Nothing found' : 'Your chats will stand here. They stay in this browser.';
        const sections = [...groups].map(([name, items]) =>
            element('section', { 'aria-label': name }, element('h3', {}, name), element('ul', {}, ...items)));
        this.list.replaceChildren(...(shown.length ? sections : [element('p', { class: 'none' }, none)]));
        if (focused) {
            this.list.querySelector(`li[data-id="${CSS.escape(focused)}"] button`)?.focus();
        }
    }

    item(meta) {
        const present = meta.id === this.present;
        const open = element('button', {
            type: 'button', class: 'open', title: meta.title, dir: 'auto', onclick: () => this.on.open(meta.id),
            ...(present && { 'aria-current': 'page' }),
        }, meta.title);
        const item = element('li', { 'data-id': meta.id, class: this.running?.has(meta.id) ? 'running' : '' }, open,
            iconButton('edit', `Rename ${meta.title}`, () => this.rename(item, meta)),
            iconButton('delete', `Delete ${meta.title}`, () => this.on.remove(meta)));
        return item;
    }

    rename(item, meta) {
        const box = element('input', { type: 'text', 'aria-label': 'Name of the chat', maxlength: '200', dir: 'auto' });
        box.value = meta.title;
        let over = false;
        const finish = (keep) => {
            if (!over) {
                over = true;
                const title = box.value.trim();
                keep && title && title !== meta.title ? this.on.rename(meta, title) : this.draw();
            }
        };
        box.addEventListener('blur', () => finish(true));
        box.addEventListener('keydown', (event) => {
            event.stopPropagation();
            if (event.key === 'Enter' || event.key === 'Escape') {
                finish(event.key === 'Enter');
            }
        });
        item.replaceChildren(box);
        box.select();
    }

    boxKey(event) {
        if (event.key === 'Enter' && !event.isComposing) {
            event.preventDefault();
            clearTimeout(this.timer);
            if (!this.box.value.trim()) {
                this.on.create();
                return;
            }
            this.search().then(() => this.list.querySelector('button.open')?.click());
        } else if (event.key === 'ArrowDown') {
            event.preventDefault();
            this.list.querySelector('button.open')?.focus();
        } else if (event.key === 'Escape' && this.box.value) {
            event.stopPropagation();
            this.box.value = '';
            this.search();
        }
    }

    listKey(event) {
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        const buttons = [...this.list.querySelectorAll('button.open')];
        const at = buttons.indexOf(document.activeElement);
        if (step && at >= 0) {
            event.preventDefault();
            (buttons[at + step] || (step < 0 ? this.box : buttons[at])).focus();
        } else if (event.key === 'Delete' && at >= 0) {
            this.on.remove(this.metas.find((meta) => meta.id === buttons[at].closest('li').dataset.id));
        }
    }
}
