/* The page: what belongs together, and what keys and buttons do. */
import { getProps, hasKey, keyIsKept, setKey } from './api.js';
import { Attachments } from './attach.js';
import { Chat, newMeta } from './chat.js';
import { $, announce, copyText, element, icon, toast } from './dom.js';
import { History } from './history.js';
import { applyTheme, loadSettings, openSettings, requestFields, saveSettings } from './settings.js';
import { Store } from './store.js';
import { Talk, cutOldest, tokensUsed } from './talk.js';
import { Thread } from './thread.js';

const COPIED_MS = 1500;
const ANNOUNCED_CHARS = 500;
const PROPS_RETRY_MS = [1000, 2000, 5000, 10000];

const touch = matchMedia('(hover: none) and (pointer: coarse)');
const narrow = matchMedia('(max-width: 760px)');
const settings = loadSettings();
const prompt = $('#prompt');
const drafts = new Map();
const removed = new Set(); /* ids of chats: an answer that still comes does not bring one back */
const others = 'BroadcastChannel' in window ? new BroadcastChannel('pleiad') : null;

let props = null;
let store = null;
let chat = null;

applyTheme(settings.theme);

/* ---- answers ---- */

const talk = new Talk({
    shown: (of, message) => {
        if (of === chat) {
            thread.changed(message);
        }
    },
    saved: (of, message) => save(of, [message]),
    done: (of, message) => {
        if (of === chat) {
            thread.changed(message);
            showState();
            announce(message.status === 'failed' ? '' : `Answer: ${message.text.slice(0, ANNOUNCED_CHARS)}`);
        }
        save(of, [message]);
        showHistory();
    },
    key: () => askKey(),
});

const thread = new Thread($('#scroll'), $('#messages'), {
    edit: (message) => thread.edit(message, (text) => {
        if (text !== null) {
            say(text, message.parent, message.media);
        }
        prompt.focus();
    }),
    again: (message) => answer(message.parent),
    retry: (message) => retry(message),
    copy: (message, button) => copyFrom(button, message.text),
    remove: (message) => removeMessage(message),
    pick: (message) => {
        chat.pick(message);
        save(chat);
        thread.refresh();
        showState();
        document.getElementById(`m-${message.id}`)?.querySelector('.pager button:not(:disabled)')?.focus();
    },
    key: () => askKey(),
    cut: (message) => {
        if (cutOldest(chat, message, props?.context || 4096)) {
            save(chat);
            thread.refresh();
            retry(message);
        } else {
            toast('Only your last message is left, and it is too long.');
        }
    },
    newChat: () => openChat(null),
}, (message) => talk.progress(message));

const running = () => talk.inChat(chat.meta.id).map((run) => run.message);

async function save(of, messages = []) {
    if (removed.has(of.meta.id)) {
        return;
    }
    try {
        await store.save(of.meta, messages.filter((message) => of.messages.has(message.id)));
    } catch (error) {
        toast(error.name === 'QuotaExceededError'
            ? 'The browser has no room left for chats: delete some, or save them as a file.'
            : `The chat could not be kept: ${error.message}`);
    }
}

/* A message of the user's below parent, and an answer to it. */
function say(text, parent, media = []) {
    const first = chat.messages.size === 0;
    const message = chat.add('user', text, parent, 'done', media);
    if (first) {
        chat.nameFrom(text || media[0]?.name || '');
        history.replaceState(null, '', `#${chat.meta.id}`);
    }
    save(chat, [message]).then(changedChats);
    answer(message.id);
}

function answer(parent) {
    const message = chat.add('assistant', '', parent, 'streaming');
    begin(message);
    thread.following = true;
    thread.refresh();
}

function retry(message) {
    if (!talk.isRunning(message)) {
        begin(message);
    }
}

function begin(message) {
    const model = props?.model ? { model: props.model } : {};
    talk.start(chat, message, { ...model, ...requestFields(settings) });
    showState();
    showHistory();
}

function stopAll() {
    const messages = chat.branch().filter((message) => talk.isRunning(message) || talk.waiting.has(message.id));
    messages.forEach((message) => {
        talk.stop(message);
        thread.changed(message);
    });
    return messages.length > 0;
}

function removeMessage(message) {
    const of = chat;
    const taken = of.remove(message);
    taken.forEach((other) => talk.stop(other));
    store.removeMessages(taken);
    save(of);
    thread.refresh();
    showState();
    prompt.focus();
    toast(taken.length === 1 ? 'Message deleted' : `${taken.length} messages deleted`, ['Undo', () => {
        of.restore(taken);
        save(of, taken);
        if (of === chat) {
            thread.refresh();
            showState();
        }
    }]);
}

/* ---- what the page shows ---- */

function showState() {
    const busy = running().length > 0;
    const branch = chat.branch();
    $('#send').hidden = busy;
    $('#stop').hidden = !busy;
    $('#welcome').hidden = branch.length > 0;
    $('#title').textContent = chat.meta.title;
    $('#open-system').classList.toggle('set', chat.meta.system.trim() !== '');
    $('#export-chat').classList.toggle('away', chat.messages.size === 0);
    document.title = chat.messages.size ? `${chat.meta.title} – Pleiad` : 'Pleiad';
    showMeter(tokensUsed(branch));
}

function showMeter(used) {
    const meter = $('#meter');
    const context = props?.context || 0;
    const share = context ? Math.min(1, used / context) : 0;
    meter.classList.toggle('known', context > 0);
    meter.classList.toggle('full', share > 0.85);
    meter.setAttribute('aria-valuemax', context || 1);
    meter.setAttribute('aria-valuenow', Math.min(used, context));
    meter.setAttribute('aria-valuetext', `${used} of ${context} tokens`);
    meter.title = `${used} of ${context} tokens of context`;
    $('.bar span', meter).style.width = `${share * 100}%`;
    $('.count', meter).textContent = context ? `${used.toLocaleString('en')} / ${context.toLocaleString('en')}` : '';
}

function showHistory() {
    sideList.setPresent(chat.meta.id, new Set([...talk.running.values()].map((run) => run.message.chat)));
}

const pathLabel = (path) => ({ auto: 'auto', e4b: 'e4b, best', e2b: 'e2b, fastest' })[path] || path;

function showPaths() {
    const select = $('#path');
    const known = [...new Set(['auto', ...(props?.paths || [])])];
    if (props && !known.includes(settings.path)) {
        settings.path = 'auto';
    } else if (!known.includes(settings.path)) {
        known.push(settings.path);
    }
    select.replaceChildren(...known.map((path) => element('option', { value: path }, pathLabel(path))));
    select.value = settings.path;
    $('#wish').value = settings.wish;
    $('#wish').disabled = settings.path !== 'auto';
}

function growPrompt() {
    prompt.style.height = 'auto';
    prompt.style.height = `${prompt.scrollHeight}px`;
}

function copied(button) {
    const before = [...button.childNodes];
    button.replaceChildren(button.classList.contains('copy-code') ? 'Copied' : icon('check'));
    button.classList.add('done');
    announce('Copied');
    setTimeout(() => {
        button.replaceChildren(...before);
        button.classList.remove('done');
    }, COPIED_MS);
}

async function copyFrom(button, text) {
    if (button.classList.contains('done')) {
        return;
    }
    try {
        await copyText(text);
        copied(button);
    } catch (error) {
        toast(`Not copied: ${error.message}`);
    }
}

/* ---- chats ---- */

function keepDraft() {
    if (chat) {
        drafts.set(chat.messages.size ? chat.meta.id : '', prompt.value);
        sessionStorage.setItem('pleiad.drafts', JSON.stringify([...drafts]));
    }
}

/* id null: a new one. */
async function openChat(id) {
    keepDraft();
    /* A chat that is being answered is the one in memory, not the one in the store. */
    const live = [...talk.running.values()].find((run) => run.message.chat === id);
    const kept = id && !live ? await store.load(id) : null;
    chat = live ? live.chat : kept ? new Chat(kept.meta, kept.messages) : new Chat(newMeta());
    const address = kept || live ? `#${id}` : '';
    if (location.hash !== address) {
        history.pushState(null, '', address || location.pathname + location.search);
    }
    prompt.value = drafts.get(kept || live ? id : '') || '';
    growPrompt();
    thread.open(chat);
    showState();
    showHistory();
    showSide(false);
    if (!touch.matches) {
        prompt.focus();
    }
}

async function removeChat(meta) {
    removed.add(meta.id);
    talk.stopChat(meta.id);
    const taken = await store.removeChat(meta.id);
    if (chat.meta.id === meta.id) {
        await openChat(null);
    }
    await changedChats();
    toast('Chat deleted', ['Undo', async () => {
        removed.delete(meta.id);
        await store.save(taken.meta, taken.messages);
        await changedChats();
    }]);
}

async function renameChat(meta, title) {
    if (chat.meta.id === meta.id) {
        chat.meta.title = title;
        showState();
    }
    await store.save({ ...meta, title, named: true });
    await changedChats();
}

async function changedChats() {
    others?.postMessage('changed');
    await sideList.reload();
}

function download(text, name) {
    const address = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    element('a', { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
}

async function importFile(file) {
    try {
        const ids = await store.importAll(await file.text());
        ids.forEach((id) => removed.delete(id));
        if (ids.includes(chat.meta.id)) {
            talk.stopChat(chat.meta.id);
            await openChat(chat.meta.id);
        }
        await changedChats();
        $('#settings').close();
        toast(ids.length === 1 ? 'One chat read' : `${ids.length} chats read`);
    } catch (error) {
        toast(`${file.name} was not read: ${error.message}`);
    }
}

/* ---- the list at the side, dialogs ---- */

/* On narrow windows the list is a drawer, and out of reach while it is closed. */
function showSide(shown) {
    document.body.classList.toggle('side-shown', shown);
    $('#side').inert = narrow.matches && !shown;
    $('main').inert = narrow.matches && shown;
    $('#open-side').setAttribute('aria-expanded', String(shown));
}

function askKey() {
    const dialog = $('#key');
    if (dialog.open) {
        return;
    }
    $('#key-keep').checked = keyIsKept();
    $('#key-value').value = '';
    dialog.returnValue = '';
    dialog.showModal();
}

function closedKey() {
    const dialog = $('#key');
    if (dialog.returnValue !== 'use') {
        return;
    }
    setKey($('#key-value').value.trim(), $('#key-keep').checked);
    askProps();
    chat.branch().filter((message) => message.problem?.kind === 'key').forEach(retry);
}

function changedSettings() {
    saveSettings(settings);
    showPaths();
}

function showSettings() {
    const version = props?.version ? `, version ${props.version}` : '';
    $('#server-note').textContent = `${props?.model || 'No model'} at ${location.host}${version}. ` +
        `${hasKey() ? 'A key is in use' : 'No key is in use'}${keyIsKept() ? ' and kept in this browser' : ''}.`;
    $('#storage-note').textContent = store.lasting ? 'They are kept in this browser only.'
        : 'This browser keeps nothing for this page: chats are lost when it is closed.';
    openSettings(settings, props, changedSettings);
}

function switchTheme() {
    const { matches } = matchMedia('(prefers-color-scheme: dark)');
    const dark = settings.theme === 'auto' ? matches : settings.theme === 'dark';
    settings.theme = dark ? 'light' : 'dark';
    applyTheme(settings.theme);
    saveSettings(settings);
}

/* ---- the server's properties ---- */

async function askProps(attempt = 0) {
    try {
        props = await getProps();
        $('#trouble').textContent = '';
    } catch (error) {
        if (error.kind === 'key') {
            askKey();
        } else {
            $('#trouble').textContent = `${error.message} Trying again…`;
            setTimeout(() => askProps(attempt + 1), PROPS_RETRY_MS[Math.min(attempt, PROPS_RETRY_MS.length - 1)]);
        }
    }
    $('#welcome-model').textContent = props?.model ? `${props.model} answers, from ${location.host}` : '\u00a0';
    attachments.setTakes(props?.modalities);
    showPaths();
    showState();
}

/* ---- keys and buttons ---- */

const attachments = new Attachments(() => thread.keepEnd());

function submit(event) {
    event?.preventDefault();
    const text = prompt.value.trim();
    if ((!text && !attachments.list.length) || running().length) {
        return;
    }
    const media = attachments.take();
    prompt.value = '';
    drafts.delete('');
    growPrompt();
    const branch = chat.branch();
    say(text, branch[branch.length - 1]?.id || null, media);
    keepDraft();
}

function promptKey(event) {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing && !touch.matches) {
        submit(event);
    } else if (event.key === 'ArrowUp' && prompt.value === '' && !running().length) {
        const mine = chat.branch().filter((message) => message.role === 'user');
        if (mine.length) {
            event.preventDefault();
            $(`#m-${mine[mine.length - 1].id} .actions button[aria-label=Edit]`)?.click();
        }
    }
}

function pageKey(event) {
    const control = event.ctrlKey || event.metaKey;
    if (control && !event.shiftKey && event.key.toLowerCase() === 'k') {
        event.preventDefault();
        showSide(true);
        $('#search').focus();
        $('#search').select();
    } else if (control && event.shiftKey && event.key.toLowerCase() === 'o') {
        event.preventDefault();
        openChat(null);
    } else if (event.key === 'Escape' && !$('dialog[open]')) {
        if (document.body.classList.contains('side-shown')) {
            showSide(false);
            (narrow.matches ? $('#open-side') : prompt).focus();
        } else {
            stopAll();
        }
    }
}

function bind() {
    const clicks = {
        '#new-chat': () => openChat(null),
        '#new-chat-small': () => openChat(null),
        '#open-side': () => { showSide(true); $('#close-side').focus(); },
        '#close-side': () => { showSide(false); $('#open-side').focus(); },
        '#scrim': () => showSide(false),
        '#switch-theme': switchTheme,
        '#open-settings': () => { showSide(false); showSettings(); },
        '#open-system': () => { $('#system-text').value = chat.meta.system; $('#system').showModal(); },
        '#export-chat': async () => download(await store.exportAll(chat.meta.id), 'chat.json'),
        '#export-all': async () => download(await store.exportAll(), 'chats.json'),
        '#import': () => $('#import-file').click(),
        '#delete-all': deleteAll,
        '#change-key': () => { $('#settings').close(); askKey(); },
        '.skip': (event) => { event.preventDefault(); prompt.focus(); }, /* the address names the chat */
        '#cancel-key': () => $('#key').close(),
        '#stop': () => { stopAll(); prompt.focus(); },
    };
    for (const [selector, does] of Object.entries(clicks)) {
        $(selector).addEventListener('click', does);
    }
    $('#composer').addEventListener('submit', submit);
    $('#key').addEventListener('close', closedKey);
    $('#system').addEventListener('close', () => {
        chat.meta.system = $('#system-text').value;
        if (chat.messages.size) {
            save(chat);
        }
        showState();
    });
    $('#import-file').addEventListener('change', (event) => {
        [...event.target.files].forEach(importFile);
        event.target.value = '';
    });
    $('#path').addEventListener('change', (event) => { settings.path = event.target.value; changedSettings(); });
    $('#wish').addEventListener('change', (event) => { settings.wish = event.target.value; changedSettings(); });
    $('#messages').addEventListener('click', (event) => {
        const button = event.target.closest('.copy-code');
        if (button) {
            copyFrom(button, $('code', button.closest('figure')).textContent);
        }
    });
    for (const dialog of document.querySelectorAll('dialog')) {
        /* A click on the backdrop has the dialog itself as its target. */
        dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
        dialog.addEventListener('close', () => {
            /* Chromium gives the focus back, but after a click not the caret. */
            const focused = document.activeElement;
            focused.blur();
            focused.focus();
        });
    }
    prompt.addEventListener('input', growPrompt);
    prompt.addEventListener('keydown', promptKey);
    document.addEventListener('keydown', pageKey);
    narrow.addEventListener('change', () => showSide(false));
    window.addEventListener('popstate', () => openChat(location.hash.slice(1) || null));
    window.addEventListener('pagehide', () => {
        keepDraft();
        running().forEach((message) => save(chat, [message]));
    });
    others?.addEventListener('message', () => sideList.reload());
}

async function deleteAll() {
    const button = $('#delete-all');
    if (!button.classList.contains('sure')) {
        button.classList.add('sure');
        button.textContent = 'Really delete all?';
        setTimeout(() => { button.classList.remove('sure'); button.textContent = 'Delete all'; }, 4000);
        return;
    }
    for (const { id } of await store.list()) {
        removed.add(id);
        talk.stopChat(id);
    }
    await store.clear();
    await openChat(null);
    await changedChats();
    $('#settings').close();
    toast('All chats are deleted');
}

let sideList = null;

async function main() {
    store = await Store.open();
    sideList = new History(store, {
        open: (id) => openChat(id), create: () => openChat(null), rename: renameChat, remove: removeChat,
    });
    try {
        JSON.parse(sessionStorage.getItem('pleiad.drafts') || '[]').forEach(([id, text]) => drafts.set(id, text));
    } catch {
        sessionStorage.removeItem('pleiad.drafts');
    }
    if (/Mac|iP/.test(navigator.platform)) {
        $('kbd').textContent = '⌘ K';
    }
    bind();
    showSide(false);
    await openChat(location.hash.slice(1) || null);
    await Promise.all([sideList.reload(), askProps()]);
    document.documentElement.dataset.ready = 'yes';
}

main();
