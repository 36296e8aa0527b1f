/* What the user has set: kept in localStorage, and the dialog to change it. Sampling holds only what differs from the
 * server's own values, so that these stay the server's to choose. */
import { $, element } from './dom.js';

const KEY = 'pleiad.settings';

/* Gemma's values, until the server says its own. */
const FIELDS = [
    ['temperature', 'Temperature', 0, 2, 0.05, 1, '0 always takes the likeliest word'],
    ['top_p', 'Top-p', 0.01, 1, 0.01, 0.95, 'share of the likeliest words that may come'],
    ['top_k', 'Top-k', 0, 256, 1, 64, 'how many words may come; 0 for all'],
    ['min_p', 'Min-p', 0, 1, 0.01, 0, 'least likelihood, of the likeliest’s'],
    ['repeat_penalty', 'Repeat penalty', 1, 2, 0.01, 1, '1 for none'],
    ['presence_penalty', 'Presence penalty', -2, 2, 0.1, 0, 'for words that were there'],
    ['frequency_penalty', 'Frequency penalty', -2, 2, 0.1, 0, 'for words that were there often'],
].map(([name, label, min, max, step, preset, hint]) => ({ name, label, min, max, step, preset, hint }));

const EMPTY = { theme: 'auto', path: 'auto', wish: 'balanced', sampling: {}, max_tokens: '', seed: '', stop: '' };

export function loadSettings() {
    try {
        const kept = JSON.parse(localStorage.getItem(KEY)) || {};
        return { ...EMPTY, ...kept, sampling: { ...kept.sampling } };
    } catch {
        return { ...EMPTY, sampling: {} };
    }
}

export function saveSettings(settings) {
    try {
        localStorage.setItem(KEY, JSON.stringify(settings));
    } catch {
        /* full or forbidden: they hold until the page is closed */
    }
}

export function applyTheme(theme) {
    if (theme === 'auto') {
        delete document.documentElement.dataset.theme;
    } else {
        document.documentElement.dataset.theme = theme;
    }
}

const presetOf = (field, props) => {
    const value = props?.sampling?.[field.name];
    return Number.isFinite(value) ? Number(value.toFixed(4)) : field.preset;
};

/* The fields of a request that say how to answer. */
export function requestFields(settings) {
    const fields = { ...settings.sampling, path: settings.path };
    if (settings.path === 'auto' && settings.wish !== 'balanced') {
        fields.quality = settings.wish;
    }
    for (const name of ['max_tokens', 'seed']) {
        if (settings[name] !== '') {
            fields[name] = Number(settings[name]);
        }
    }
    const stop = settings.stop.split('\n').filter(Boolean).slice(0, 4);
    if (stop.length) {
        fields.stop = stop.map((line) => line.replace(/\\n/g, '\n'));
    }
    return fields;
}

/* ---- the dialog ---- */

function samplingRow(field, settings, props, changed) {
    const preset = presetOf(field, props);
    const value = settings.sampling[field.name] ?? preset;
    const limits = { min: field.min, max: field.max, step: field.step, value };
    const names = { id: `set-${field.name}`, 'aria-describedby': `hint-${field.name}` };
    const slider = element('input', { type: 'range', ...limits, ...names });
    const box = element('input', { type: 'number', ...limits, 'aria-label': `${field.label}, as a number` });
    const row = element('div', { class: 'setting' },
        element('label', { for: slider.id }, field.label), box, slider,
        element('p', { class: 'hint', id: `hint-${field.name}` }, `${field.hint}; usual is ${preset}`));
    const take = (from, to) => {
        if (from.value === '' || !from.validity.valid) {
            return;
        }
        to.value = from.value;
        if (Number(from.value) === preset) {
            delete settings.sampling[field.name];
        } else {
            settings.sampling[field.name] = Number(from.value);
        }
        changed();
    };
    slider.addEventListener('input', () => take(slider, box));
    box.addEventListener('input', () => take(box, slider));
    return row;
}

function fillSampling(settings, props, changed) {
    $('#sampling').replaceChildren(...FIELDS.map((field) => samplingRow(field, settings, props, changed)));
}

function bindField(input, settings, name, changed) {
    input.value = settings[name];
    input.oninput = () => {
        if (input.validity.valid) {
            settings[name] = input.value;
            changed();
        }
    };
}

export function openSettings(settings, props, changed) {
    const dialog = $('#settings');
    fillSampling(settings, props, changed);
    bindField($('#set-max-tokens'), settings, 'max_tokens', changed);
    bindField($('#set-seed'), settings, 'seed', changed);
    bindField($('#set-stop'), settings, 'stop', changed);
    for (const choice of dialog.querySelectorAll('input[name=theme]')) {
        choice.checked = choice.value === settings.theme;
        choice.onchange = () => {
            settings.theme = choice.value;
            applyTheme(settings.theme);
            changed();
        };
    }
    $('#reset-sampling').onclick = () => {
        Object.assign(settings, { sampling: {}, max_tokens: '', seed: '', stop: '' });
        changed();
        openSettings(settings, props, changed);
    };
    if (!dialog.open) {
        dialog.showModal();
    }
}
