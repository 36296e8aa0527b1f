#!/usr/bin/env python3
"""Small images and sounds of every kind, and what the reference's decoders make of them (media.safetensors).

Needs Pillow, numpy, safetensors, soundfile, soxr, torchvision (on a CPU with AVX2); ffmpeg for clip.mp4. Decoded images are those of Pillow, turned by
ImageOps.exif_transpose and laid over white; sounds those of transformers.audio_utils.load_audio(backend="soundfile").
"""
import io
import math
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import soundfile
import soxr
from PIL import Image, ImageOps
from safetensors.numpy import save_file

out = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
expected = {}


def path(name):
    return os.path.join(out, name)


def colours(h, w, channels):
    y, x, c = np.mgrid[0:h, 0:w, 0:channels]
    return ((x * 255 // max(w - 1, 1) * (c % 3 == 0) + y * 255 // max(h - 1, 1) * (c % 3 == 1)
             + (x * y * 3 % 256) * (c % 3 == 2) + (c == 3) * (x * 9)) % 256).astype(np.uint8)


def flatten(image):
    image = ImageOps.exif_transpose(image)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def save_image(name, image, **options):
    image.save(path(name), **options)
    expected[name] = np.ascontiguousarray(flatten(Image.open(path(name))))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def save_png16(name, values, colour, transparent=None, interlace=0):
    """16 bits a channel, which Pillow cannot write; the high bytes are what is expected."""
    h, w = values.shape[:2]
    rows = b"".join(b"\0" + values[y].astype(">u2").tobytes() for y in range(h))
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, interlace))
    if transparent is not None:
        data += png_chunk(b"tRNS", struct.pack(">%dH" % len(transparent), *transparent))
    data += png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")
    with open(path(name), "wb") as f:
        f.write(data)


def images():
    a = colours(12, 17, 3)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save_image(f"exif{orientation}.jpg", Image.fromarray(a), quality=95, subsampling=0, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 8
    save_image("exif8.png", Image.fromarray(a), exif=exif)
    save_image("exif8.webp", Image.fromarray(a), lossless=True, exif=exif)
    save_image("cmyk.jpg", Image.fromarray(colours(12, 17, 4), "CMYK"), quality=95)
    save_image("rgba.png", Image.fromarray(colours(12, 17, 4), "RGBA"))
    save_image("lossy.webp", Image.fromarray(colours(24, 33, 3)), quality=80)
    save_image("alpha.webp", Image.fromarray(colours(12, 17, 4), "RGBA"), lossless=True, exact=True)
    save_image("profile.png", Image.fromarray(a), icc_profile=bytes(100000)) # unpacked longer than the file
    frames = [Image.fromarray(np.roll(colours(12, 17, 4), 5 * i, 1), "RGBA") for i in range(3)]
    save_image("animated.webp", frames[0], save_all=True, append_images=frames[1:], duration=100, lossless=True, exact=True)
    palette = Image.fromarray(a).quantize(7)
    save_image("palette_trns.png", palette, transparency=bytes([255, 0, 128, 255, 10, 255, 255]))

    deep = colours(12, 17, 3).astype(np.uint16) * 256 + 200
    save_png16("rgb16.png", deep, 2)
    expected["rgb16.png"] = (deep >> 8).astype(np.uint8)
    grey = deep[..., 0]
    save_png16("grey16.png", grey, 0)
    expected["grey16.png"] = np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, 2)
    save_png16("grey16_trns.png", grey, 0, transparent=[int(grey[0, 3])])
    keyed = expected["grey16.png"].copy()
    keyed[grey == grey[0, 3]] = 255
    expected["grey16_trns.png"] = keyed


def interlaced():
    """Adam7, which Pillow reads but does not write."""
    a = colours(11, 13, 3)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in a[y::dy, x::dx] if row.size)
    with open(path("interlaced.png"), "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 13, 11, 8, 2, 0, 0, 1))
                + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b""))
    expected["interlaced.png"] = np.asarray(Image.open(path("interlaced.png")).convert("RGB"))


def shrunk():
    """A picture made so small that a weight has all the bits that it may have."""
    import torch
    from torchvision.transforms.v2 import functional
    size, variant = 999, 2
    y, x = np.mgrid[0:size, 0:size].astype(np.int64)
    rx, ry = x * 6 // size, y * 6 // size
    channels = []
    for c in range(3):
        g = (rx * 37 + ry * 91 + c * 53 + variant * 29) % 7
        channels.append((g * 36 + ((x * (g + 1) + y * (3 + c)) & (63 >> (g & 3))) + ((x * y) >> 9)) & 255)
    image = torch.from_numpy(np.stack(channels).astype(np.uint8))
    for side in (3, 7):
        expected[f"pattern999v2_{side}_rows"] = functional.resize(image, [side, side], antialias=True).numpy()


def bombs():
    """Chunks of a few kilobytes that become 20 megabytes."""
    zeros = zlib.compress(bytes(20 << 20), 9)
    for name, chunk in ("bomb_text.png", png_chunk(b"zTXt", b"k\0\0" + zeros)), \
            ("bomb_profile.png", png_chunk(b"iCCP", b"k\0\0" + zeros)):
        with open(path(name), "wb") as f:
            f.write(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)) + chunk
                    + png_chunk(b"IDAT", zlib.compress((b"\0" + bytes(12)) * 4)) + png_chunk(b"IEND", b""))


def tone(rate, seconds, channels):
    t = np.arange(int(rate * seconds)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * 220 * (c + 1) * t) + 0.1 * np.sin(2 * np.pi * (1000 + 70 * c) * t * (1 + t))
                     for c in range(channels)], -1)


def load(name):
    with soundfile.SoundFile(path(name)) as f:
        rate, waves = f.samplerate, f.read(dtype="float32", always_2d=True).T
    wave = waves.mean(axis=0) if len(waves) > 1 else waves[0]
    if rate != 16000:
        n = math.ceil(len(wave) * 16000 / rate)
        wave = soxr.resample(wave, rate, 16000, quality="soxr_hq")
        wave = np.pad(wave, (0, max(0, n - len(wave))))[:n]
    return np.ascontiguousarray(wave, dtype=np.float32)


def sounds():
    for name, rate, channels, seconds, options in (
            ("mono16k.wav", 16000, 1, 0.2, {"subtype": "PCM_16"}),
            ("stereo44k.wav", 44100, 2, 0.2137, {"subtype": "PCM_16"}),
            ("eight192k.wav", 192000, 8, 0.05, {"subtype": "PCM_16"}),
            ("u8_8k.wav", 8000, 1, 0.2, {"subtype": "PCM_U8"}),
            ("float24k.wav", 24000, 1, 0.2, {"subtype": "FLOAT"}),
            ("odd11025.wav", 11025, 1, 0.2, {"subtype": "PCM_24"}),
            ("stereo48k.flac", 48000, 2, 0.2, {"subtype": "PCM_16"}),
            ("mono22k.ogg", 22050, 1, 0.3, {"format": "OGG", "subtype": "VORBIS"}),
            ("mono48k.opus", 48000, 1, 2.2, {"format": "OGG", "subtype": "OPUS"}),
            ("mono44k.mp3", 44100, 1, 0.3, {"format": "MP3", "subtype": "MPEG_LAYER_III"})):
        soundfile.write(path(name), tone(rate, seconds, channels), rate, **options)
        expected[name] = load(name)


def clip():
    """Two seconds: each half second another grey, brighter to the right, and a tone of 440 Hz."""
    subprocess.run([
        "ffmpeg", "-y", "-v", "error", "-f", "lavfi", "-i",
        "color=c=black:s=64x48:r=10:d=2,geq=lum='32+floor(T*2)*40+X+Y/4':cb=128:cr=128", "-f", "lavfi", "-i",
        "sine=frequency=440:sample_rate=44100:duration=2", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20",
        "-c:a", "aac", "-b:a", "48k", "-shortest", path("clip.mp4")], check=True)
    subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", path("clip.mp4"), "-an", "-c", "copy", path("silent.mkv")],
                   check=True)
    subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", path("clip.mp4"), "-vn", "-c", "copy", path("sound.m4a")],
                   check=True)
    subprocess.run(["ffmpeg", "-y", "-v", "error", "-i", path("clip.mp4"), "-c", "copy", "-metadata:s:v", "rotate=90",
                    path("turned.mp4")], check=True)


images()
interlaced()
shrunk()
bombs()
sounds()
clip()
save_file(expected, path("media.safetensors"))
