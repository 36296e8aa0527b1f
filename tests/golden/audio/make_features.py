#!/usr/bin/env python3
"""What the tests keep of audio_oracle.py's features, and features of sound with loud tones, noise and speech.

  make_features.py GOLDENS      GOLDENS: the folder that audio_oracle.py --out made; espeak-ng speaks

Needs what audio_oracle.py needs.
"""
import os
import subprocess
import sys
import tempfile
import wave

import numpy as np
from safetensors.numpy import load_file, save_file

from audio_oracle import extract, prng

HERE = os.path.dirname(os.path.abspath(__file__))


def speech(text, voice, seconds):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "speech.wav")
        subprocess.run(["espeak-ng", "-v", voice, "-w", path, text], check=True)
        with wave.open(path) as f:
            rate = f.getframerate()
            x = np.frombuffer(f.readframes(f.getnframes()), "<i2") / 32768
    at = np.arange(int(seconds * 16000)) * rate / 16000
    return np.interp(at, np.arange(len(x)), x)


def main():
    kept = {k: v for k, v in load_file(os.path.join(sys.argv[1], "features.safetensors")).items()
            if k != "mel_filters" and not k.startswith(("long/", "batch/"))}
    save_file(kept, os.path.join(HERE, "features.safetensors"))
    t = np.arange(3200) / 16000
    sounds = {
        "tone_100": np.sin(2 * np.pi * 100 * t),
        "tone_997": np.sin(2 * np.pi * 997.3 * t),
        "tone_7000": np.sin(2 * np.pi * 7000 * t),
        "two_tones": 0.9 * np.sin(2 * np.pi * 300 * t) + 1e-4 * np.sin(2 * np.pi * 5000 * t),
        "too_loud": 1000 * np.sin(2 * np.pi * 440 * t),
        "constant": np.ones(3200),
        "noise": prng("noise", 1, 3200).astype(np.float64),
        "impulse": np.eye(1, 3200, 1000)[0],
        "english": speech("Pleiad listens.", "en", 0.5),
        "german": speech("Drei rote Kreise", "de", 0.5),
    }
    out = {}
    for name, x in sounds.items():
        out[name + "/samples"] = x.astype(np.float32)
        out[name + "/features"] = extract([out[name + "/samples"]])[0][0]
    save_file(out, os.path.join(HERE, "loud.safetensors"))


main()
