/* Small helpers for elements. */

export const $ = (selector, root = document) => root.querySelector(selector);

/* element('button', { class: 'x', onclick: fn, disabled: true }, 'text', child...) */
export function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith('on')) {
            made.addEventListener(name.slice(2), value);
        } else if (value === true) {
            made.setAttribute(name, '');
        } else if (value !== false && value != null) {
            made.setAttribute(name, value);
        }
    }
    made.append(...children.filter((child) => child != null));
    return made;
}

const SVG = 'http://www.w3.org/2000/svg';

/* One of the symbols in index.html. */
export function icon(name) {
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('class', 'icon');
    svg.setAttribute('aria-hidden', 'true');
    const use = document.createElementNS(SVG, 'use');
    use.setAttribute('href', `#i-${name}`);
    svg.append(use);
    return svg;
}

export function iconButton(name, label, onclick, more = {}) {
    const attributes = { type: 'button', class: 'icon-button', title: label, 'aria-label': label, onclick, ...more };
    return element('button', attributes, icon(name));
}

/* Without a secure context (plain HTTP from another machine) there is no navigator.clipboard. */
export async function copyText(text) {
    if (navigator.clipboard && window.isSecureContext) {
        await navigator.clipboard.writeText(text);
        return;
    }
    const focused = document.activeElement;
    const area = element('textarea', { class: 'hidden-visually', 'aria-hidden': 'true' });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    focused?.focus();
    if (!copied) {
        throw new Error('the browser does not allow it');
    }
}

let toastTimer = 0;

/* Says something in passing; action: [label, function], such as undo. */
export function toast(text, action) {
    const box = $('#toast');
    clearTimeout(toastTimer);
    const hide = () => {
        box.classList.remove('shown');
        box.replaceChildren();
    };
    box.replaceChildren(element('span', {}, text));
    if (action) {
        box.append(element('button', { type: 'button', onclick: () => { hide(); action[1](); } }, action[0]));
    }
    box.classList.add('shown');
    toastTimer = setTimeout(hide, action ? 8000 : 3000);
}

/* What a screen reader should say now. */
export function announce(text) {
    $('#announce').textContent = text;
}

/* crypto.randomUUID() wants a secure context too. */
export function newId() {
    const random = crypto.getRandomValues(new Uint32Array(2));
    return Date.now().toString(36) + random[0].toString(36) + random[1].toString(36);
}
