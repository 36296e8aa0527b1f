"""Speech of the closed world, made by espeak-ng: single words, digits in a row, small sums; and what may be asked about it.

    python sounds.py --count 20 --out folder [--test]
"""
from __future__ import annotations

import argparse
import random
import subprocess
import wave
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path as File

import numpy as np

import facts as f
from world import cap, in_words

RATE, HOP, FRAME, FFT, BINS = 16000, 160, 512, 1024, 128
DIGITS = [in_words(n) for n in range(10)]
ANIMALS = "cat dog cow pig horse frog sheep".split()
COUNTRIES = "France Germany Italy Spain Japan China Egypt Canada".split()
COLOURS = "red blue green yellow black white".split()
WORDS = DIGITS + ["plus", "minus", "yes", "no", "hello"] + COLOURS + ANIMALS + COUNTRIES
ACCENTS = "en-us en-gb en-gb-x-rp en-gb-scotland en-029 en-gb-x-gbclan en-gb-x-gbcwmd".split()
VARIANTS = " m1 m2 m4 m5 m6 m7 m8 f1 f3 f4 f5 Alex Andy Denis Gene Lee Michael Alicia belinda linda steph grandma grandpa john victor zac".split(" ")
TEST_VARIANTS = ("m3", "f2", "Annie", "Mike", "edward", "aunty")

ASK = ("Transcribe the following speech segment:", "Transcribe the following speech segment in English:")


@dataclass(frozen=True)
class Voice:
    name: str
    speed: int       # words per minute
    pitch: int


@dataclass(frozen=True)
class Saying:
    """What is said: one word, some digits, a sum, or two words."""
    kind: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    text: str
    answer: str
    before: bool = False      # the text stands before the sound


def draw_voice(r: random.Random, test: bool = False) -> Voice:
    variant = r.choice(TEST_VARIANTS if test else VARIANTS)
    return Voice(r.choice(ACCENTS) + ("+" + variant if variant else ""), r.randint(130, 200), r.randint(25, 75))


def draw_saying(r: random.Random) -> Saying:
    x = r.random()
    if x < 0.4:
        word = r.choice(WORDS)
        return Saying("digit" if word in DIGITS else "animal" if word in ANIMALS else "country" if word in COUNTRIES else "word", (word,))
    if x < 0.65:
        return Saying("digits", tuple(r.choice(DIGITS) for _ in range(r.randint(2, 4))))
    if x < 0.85:
        a, b, op = r.randrange(10), r.randrange(10), r.choice(("plus", "minus"))
        if op == "minus" and a < b:
            a, b = b, a
        return Saying("sum", (DIGITS[a], op, DIGITS[b]))
    return Saying("pair", (r.choice(COLOURS), r.choice(ANIMALS)))


def written(s: Saying) -> str:
    """Numbers and signs as such, as people write them."""
    signs = {"plus": "+", "minus": "-"} if s.kind == "sum" else {}
    return " ".join(str(DIGITS.index(w)) if w in DIGITS else signs.get(w, w) for w in s.words)


def questions(s: Saying) -> list[Question]:
    """Questions with the only right answers; the first asks for the words."""
    text = written(s)
    found = [Question(ASK[0], text, True), Question(ASK[1], text, True), Question("What was said?", text)]
    if s.kind == "digit":
        n = int(text)
        found.append(Question("What comes after it?", f"After {n} comes {n + 1}."))
    elif s.kind == "animal":
        found.append(Question("What does it say?", f"{cap('a ' + text)} says {f.SOUNDS[text]}."))
    elif s.kind == "country":
        found.append(Question("What is its capital?", f"The capital of {text} is {f.CAPITALS[text]}."))
    elif s.kind == "sum":
        a, b = (DIGITS.index(w) for w in s.words[::2])
        found.append(Question("Calculate it.", f"{text} = {a + b if '+' in text else a - b}."))
    return found


# ---- sound ---------------------------------------------------------------------------------------------------------

def resample(x: np.ndarray, n: int) -> np.ndarray:
    """To n samples, by cutting the spectrum; the ends are taken for silence."""
    pad = len(x) // 8 + 64
    whole = np.fft.rfft(np.pad(x, (0, pad)))
    m = round((len(x) + pad) * n / len(x))
    return np.fft.irfft(whole[:m // 2 + 1], m)[:n] * (m / (len(x) + pad))


@lru_cache(maxsize=20000)
def _speak(text: str, voice: Voice) -> np.ndarray:
    out = subprocess.run(["espeak-ng", "-v", voice.name, "-s", str(voice.speed), "-p", str(voice.pitch), "--stdout", text],
                         check=True, capture_output=True).stdout
    with wave.open(BytesIO(out)) as w:
        rate = w.getframerate()
        x = np.frombuffer(w.readframes(w.getnframes()), "<i2").astype(np.float64) / 32768
    return resample(x, round(len(x) * RATE / rate)).astype(np.float32)


def speak(text: str, voice: Voice) -> np.ndarray:
    """16 kHz samples without the silence around them."""
    x = _speak(text, voice)
    loud = np.flatnonzero(np.abs(x) > 0.02 * np.abs(x).max())
    return x[loud[0]:loud[-1] + 1]


def compose(r: random.Random, s: Saying, voice: Voice) -> tuple[np.ndarray, list[int]]:
    """Word by word with pauses between: samples, and where each word ends."""
    parts, ends, n = [np.zeros(r.randint(0, 6400), np.float32)], [], 0
    n = len(parts[0])
    for i, word in enumerate(s.words):
        x = speak(word, voice)
        parts.append(x * r.uniform(0.7, 1.0))
        ends.append(n + len(x))
        parts.append(np.zeros(r.randint(300, 4000), np.float32))
        n += len(x) + len(parts[-1])
    return np.concatenate(parts), ends


def whole(s: Saying, voice: Voice) -> np.ndarray:
    """In one breath, as a sentence."""
    return speak(" ".join(s.words), voice)


def dirty(r: random.Random, x: np.ndarray, n: int) -> np.ndarray:
    """n samples: x, louder or softer, with noise around and over it."""
    g = np.random.default_rng(r.randrange(1 << 30))
    y = np.zeros(n, np.float32)
    y[:min(n, len(x))] = x[:n]
    y *= r.uniform(0.25, 1.0) / max(float(np.abs(y).max()), 1e-3)
    kind = r.random()
    if kind < 0.75:
        noise = g.normal(0, 1, n)
        if kind < 0.35:
            noise = np.convolve(noise, np.ones(8) / 8 ** 0.5, "same")
        y += (10 ** r.uniform(-4.2, -1.9) * noise).astype(np.float32)
    return np.clip(y, -1, 1)


# ---- features ------------------------------------------------------------------------------------------------------

@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    top = 2595 * np.log10(1 + np.array([125.0, 7600.0]) / 700)
    p = 700 * (10 ** (np.linspace(top[0], top[1], BINS + 2) / 2595) - 1)
    freq = np.arange(FFT // 2 + 1)[:, None] * (RATE / FFT)
    up, down = (freq - p[:-2]) / (p[1:-1] - p[:-2]), (p[2:] - freq) / (p[2:] - p[1:-1])
    return np.maximum(0, np.minimum(up, down))


def features(x: np.ndarray) -> np.ndarray:
    """Log-mel features [frames, 128] of 16 kHz samples, as Gemma3nAudioFeatureExtractor takes them."""
    x = np.pad(x[:30 * RATE].astype(np.float32), (0, -len(x) % 128))
    n = (len(x) - FRAME - 1) // HOP + 1
    at = np.lib.stride_tricks.sliding_window_view(x, FRAME)[:n * HOP:HOP]
    y = np.concatenate([at[:, :1] * np.float32(0.03), at[:, 1:] - np.float32(0.97) * at[:, :-1]], axis=1)
    window = (0.5 * (1 - np.cos(2 * np.pi * np.arange(FRAME) / FRAME))).astype(np.float32)
    size = np.abs(np.fft.rfft(y * window, FFT)).astype(np.float32)
    return np.log(np.maximum(size @ _filters().astype(np.float32), 1e-5)).astype(np.float32)


def write_wav(path: File, x: np.ndarray) -> None:
    with wave.open(str(path), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(RATE)
        w.writeframes(np.rint(np.clip(x, -1, 1) * 32767).astype("<i2").tobytes())


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=10)
    p.add_argument("--out", default="sounds")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--test", action="store_true", help="voices kept for testing")
    a = p.parse_args()
    File(a.out).mkdir(exist_ok=True)
    r = random.Random(a.seed)
    for i in range(a.count):
        s = draw_saying(r)
        x = np.pad(whole(s, draw_voice(r, a.test)), (1600, 4800))
        write_wav(File(a.out) / f"{i:04d}-{'-'.join(s.words)}.wav", dirty(r, x, len(x)))


if __name__ == "__main__":
    main()
