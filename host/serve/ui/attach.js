/* What stands above the message field to be sent with it: images and sound, by the file picker, dropped, pasted, or from the
 * microphone. There only as far as the model takes them. */
import { $, announce, element, iconButton, toast } from './dom.js';
import { Recorder, canRecord, kindOf, readFile } from './media.js';

const MOST = 16;

/* One of them, as an element; small in the field, larger in a message. */
export function showMedia(media, more = null) {
    const { kind, name, url, thumb } = media;
    const shown = kind === 'image' ? element('img', { src: url || thumb, alt: name, title: name })
        : url ? element('audio', { src: url, controls: true, 'aria-label': name, title: name })
            : element('span', { class: 'gone' }, `${name}: not kept`);
    return element('div', { class: `media ${kind}` }, shown, more);
}

export class Attachments {
    constructor(changed) {
        this.changed = changed;
        this.list = [];
        this.takes = { vision: false, audio: false };
        this.recorder = null;
        $('#attach').addEventListener('click', () => $('#attach-file').click());
        $('#attach-file').addEventListener('change', (event) => {
            this.add([...event.target.files]);
            event.target.value = '';
        });
        $('#microphone').addEventListener('click', () => this.record());
        this.bindPaste();
        this.bindDrop();
    }

    /* Of /props. */
    setTakes(modalities) {
        this.takes = { vision: Boolean(modalities?.vision), audio: Boolean(modalities?.audio) };
        const { vision, audio } = this.takes;
        $('#attach').hidden = !vision && !audio;
        $('#attach-file').accept = [vision && 'image/*', audio && 'audio/*'].filter(Boolean).join(',');
        $('#microphone').hidden = !audio || !canRecord();
    }

    canTake(file) {
        const kind = kindOf(file);
        return (kind === 'image' && this.takes.vision) || (kind === 'audio' && this.takes.audio);
    }

    async add(files) {
        for (const file of files) {
            if (!this.canTake(file)) {
                toast(`${file.name}: the model takes ${this.takesText()}`);
            } else if (this.list.length === MOST) {
                toast(`At most ${MOST} at once`);
            } else {
                try {
                    this.list.push(await readFile(file));
                    announce(`${file.name} attached`);
                } catch (error) {
                    toast(error.message);
                }
            }
        }
        this.show();
    }

    takesText() {
        const { vision, audio } = this.takes;
        return [vision && 'images', audio && 'sound'].filter(Boolean).join(' and ') || 'text only';
    }

    show() {
        const remove = (media) => iconButton('close', `Remove ${media.name}`, () => {
            this.list = this.list.filter((other) => other !== media);
            this.show();
            $('#prompt').focus();
        });
        $('#attachments').replaceChildren(...this.list.map((media) => showMedia(media, remove(media))));
        this.changed();
    }

    /* What there is, which is then no longer here. */
    take() {
        const { list } = this;
        this.list = [];
        this.show();
        return list;
    }

    async record() {
        const button = $('#microphone');
        const { recorder } = this;
        if (recorder) {
            this.recorder = null;
            button.classList.remove('recording');
            button.setAttribute('aria-pressed', 'false');
            await this.add([await recorder.stop()]);
            return;
        }
        try {
            this.recorder = await Recorder.start();
            button.classList.add('recording');
            button.setAttribute('aria-pressed', 'true');
            announce('Recording');
        } catch (error) {
            toast(`The microphone cannot be used: ${error.message}`);
        }
    }

    bindPaste() {
        $('#prompt').addEventListener('paste', (event) => {
            const files = [...(event.clipboardData?.files || [])];
            if (files.length && (this.takes.vision || this.takes.audio)) {
                event.preventDefault();
                this.add(files);
            }
        });
    }

    bindDrop() {
        const page = document.documentElement;
        const holdsFiles = (event) => event.dataTransfer?.types.includes('Files');
        let depth = 0; /* of elements that it was dragged into */
        const mark = (change) => {
            depth = Math.max(0, depth + change);
            document.body.classList.toggle('dropping', depth > 0);
        };
        page.addEventListener('dragenter', (event) => holdsFiles(event) && mark(1));
        page.addEventListener('dragleave', (event) => holdsFiles(event) && mark(-1));
        page.addEventListener('dragover', (event) => holdsFiles(event) && event.preventDefault());
        page.addEventListener('drop', (event) => {
            if (holdsFiles(event)) {
                event.preventDefault();
                mark(-depth);
                this.add([...event.dataTransfer.files]);
            }
        });
    }
}
