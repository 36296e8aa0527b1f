/* Images and sound that a message shows. What is sent is a file as it was, where the server reads its kind, else one made
 * of it here; what is kept with a chat is a small picture.
 *
 *   { kind: 'image' or 'audio', name, url, thumb }
 *         url: a data URL; only as long as the page is there. thumb: of an image, a data URL of a small JPEG */

const MAX_FILE = 20 * 1000 * 1000; /* bytes */
const MAX_SIDE = 2048; /* pixels of an image that is made here */
const THUMB_SIDE = 256;
const RATE = 16000; /* what the model hears */
const MAX_SECONDS = 15 * 60;
const SENT_AS_THEY_ARE = {
    image: ['image/jpeg', 'image/png', 'image/webp'],
    audio: { 'audio/wav': 'wav', 'audio/x-wav': 'wav', 'audio/mpeg': 'mp3', 'audio/flac': 'flac', 'audio/ogg': 'ogg' },
};

const dataUrl = (blob) => new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
});

/* ---- images ---- */

function draw(bitmap, most, quality) {
    const scale = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
    const canvas = document.createElement('canvas');
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const context = canvas.getContext('2d');
    context.fillStyle = '#fff';
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL('image/jpeg', quality);
}

async function readImage(file) {
    let bitmap;
    try {
        bitmap = await createImageBitmap(file);
    } catch {
        throw new Error(`${file.name} is no image that this browser can read`);
    }
    const asItIs = SENT_AS_THEY_ARE.image.includes(file.type);
    const url = asItIs ? await dataUrl(file) : draw(bitmap, MAX_SIDE, 0.92);
    const thumb = draw(bitmap, THUMB_SIDE, 0.8);
    bitmap.close();
    return { kind: 'image', name: file.name, url, thumb };
}

/* ---- sound ---- */

/* Samples between -1 and 1 as a wav of 16 bits. */
function wavOf(samples) {
    const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
    const put = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
    put(0, 'RIFF');
    view.setUint32(4, 36 + 2 * samples.length, true);
    put(8, 'WAVEfmt ');
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true);
    view.setUint16(22, 1, true);
    view.setUint32(24, RATE, true);
    view.setUint32(28, 2 * RATE, true);
    view.setUint16(32, 2, true);
    view.setUint16(34, 16, true);
    put(36, 'data');
    view.setUint32(40, 2 * samples.length, true);
    samples.forEach((v, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, v)) * 32767, true));
    return new Blob([view], { type: 'audio/wav' });
}

/* Whatever the browser plays, in one channel at the model's rate. */
async function toWav(file) {
    const context = new OfflineAudioContext(1, 1, RATE);
    let sound;
    try {
        sound = await context.decodeAudioData(await file.arrayBuffer());
    } catch {
        throw new Error(`${file.name} is no sound that this browser can read`);
    }
    if (sound.duration > MAX_SECONDS) {
        throw new Error(`${file.name} is longer than ${MAX_SECONDS / 60} minutes`);
    }
    const mixed = new OfflineAudioContext(1, Math.max(1, Math.ceil(sound.duration * RATE)), RATE);
    const source = mixed.createBufferSource();
    source.buffer = sound;
    source.connect(mixed.destination);
    source.start();
    return wavOf((await mixed.startRendering()).getChannelData(0));
}

async function readSound(file) {
    const sent = SENT_AS_THEY_ARE.audio[file.type] ? file : await toWav(file);
    return { kind: 'audio', name: file.name, url: await dataUrl(sent) };
}

/* ---- files ---- */

export const kindOf = (file) => (file.type.startsWith('image/') ? 'image'
    : file.type.startsWith('audio/') || file.type === 'video/webm' ? 'audio' : null);

/* Fails with a sentence for the user. */
export async function readFile(file) {
    if (file.size > MAX_FILE) {
        throw new Error(`${file.name} has more than ${MAX_FILE / 1e6} MB`);
    }
    return kindOf(file) === 'image' ? readImage(file) : readSound(file);
}

/* As a part of what is sent; of an image that is only kept small, the small one. */
export function partOf({ kind, name, url, thumb }) {
    if (kind === 'image') {
        return { type: 'image_url', image_url: { url: url || thumb } };
    }
    if (!url) {
        return { type: 'text', text: `(The sound "${name}" is no longer there.)` };
    }
    const type = url.slice('data:'.length, url.indexOf(';'));
    const format = SENT_AS_THEY_ARE.audio[type] || 'wav';
    return { type: 'input_audio', input_audio: { data: url.slice(url.indexOf(',') + 1), format } };
}

/* What is kept with a chat. */
export const kept = (media) => media.map(({ kind, name, thumb }) => ({ kind, name, ...(thumb && { thumb }) }));

/* ---- the microphone ---- */

export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia && window.MediaRecorder);

/* Records until stop(), which gives a file. */
export class Recorder {
    static async start() {
        const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: true } });
        return new Recorder(stream);
    }

    constructor(stream) {
        this.stream = stream;
        this.pieces = [];
        this.recorder = new MediaRecorder(stream);
        this.recorder.ondataavailable = ({ data }) => this.pieces.push(data);
        this.recorder.start();
    }

    stop() {
        return new Promise((resolve) => {
            this.recorder.onstop = () => {
                this.stream.getTracks().forEach((track) => track.stop());
                const { mimeType } = this.recorder;
                resolve(new File([new Blob(this.pieces, { type: mimeType })], 'Recording', { type: 'audio/webm' }));
            };
            this.recorder.stop();
        });
    }
}
