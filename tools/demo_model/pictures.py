"""Pictures of the closed world, and what may be asked about them: shapes by colour and number, and single digits.

    python pictures.py --count 20 --out folder [--test]
"""
from __future__ import annotations

import argparse
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as File

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from world import an, cap, in_words

SIDE = 64                # pixels, as the model takes them
_FINER = 2               # pictures are drawn so many times larger, then reduced
COLOURS = {"red": (215, 40, 40), "blue": (40, 80, 220), "green": (40, 160, 60), "yellow": (240, 220, 45), "black": (22, 22, 22),
           "white": (245, 245, 245), "orange": (245, 140, 30), "purple": (130, 50, 170), "pink": (245, 150, 190), "brown": (120, 72, 35)}
SHAPES = ("circle", "square", "triangle", "star")
COUNTS = (1, 2, 3, 4)
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSansCondensed-Oblique", "DejaVuSerif-Bold", "LiberationMono-Bold",
         "LiberationSans-Regular", "LiberationSans-Bold", "LiberationSansNarrow-Regular", "LiberationSans-Italic", "RobotoCondensed-Regular",
         "Roboto-Medium", "Roboto-Bold", "LiberationMono-Regular", "DejaVuSans-Oblique")
TEST_FONTS = ("LiberationSerif-Regular", "LiberationSerif-Bold", "Roboto-Black", "Roboto-Regular", "DejaVuSerifCondensed", "DejaVuSansMono-Bold")
_FONT_FOLDERS = (File("/usr/share/fonts"), File("/usr/local/share/fonts"))


@dataclass(frozen=True)
class Picture:
    """What is seen: `number` shapes of a kind and colour, or a digit (shape "digit") of any colour."""
    shape: str
    colour: str
    number: int


def draw_what(r: random.Random) -> Picture:
    colour = r.choice(list(COLOURS))
    if r.random() < 0.35:
        return Picture("digit", colour, r.randrange(10))
    return Picture(r.choice(SHAPES), colour, r.choices(COUNTS, (2, 1, 1, 1))[0])


def questions(p: Picture) -> list[tuple[str, str]]:
    """Questions with the only right answers; the first asks for everything."""
    if p.shape == "digit":
        n = p.number
        what = f"The number {n}."
        return [("What is this?", what), ("What do you see?", what), ("Which number is this?", what), ("Write it in words.", f"{n} is {in_words(n)}."),
                ("What comes after it?", f"After {n} comes {n + 1}."), ("Is it even or odd?", f"{n} is {'odd' if n % 2 else 'even'}.")]
    things = p.shape + ("s" if p.number > 1 else "")
    what = cap(an(p.colour)) + f" {p.shape}." if p.number == 1 else f"{p.number} {p.colour} {things}."
    return [("What is this?", what), ("What do you see?", what), ("What colour is it?", f"It is {p.colour}."),
            ("How many are there?", f"There {'is' if p.number == 1 else 'are'} {p.number} {things}."), ("Which shape is it?", f"{cap(an(p.shape))}.")]


# ---- drawing -------------------------------------------------------------------------------------------------------

@lru_cache(maxsize=None)
def _font_file(name: str) -> str:
    for folder in _FONT_FOLDERS:
        found = next(folder.rglob(name + ".ttf"), None)
        if found:
            return str(found)
    raise SystemExit(f"font {name}.ttf is missing: install fonts-dejavu, fonts-liberation and fonts-roboto")


@lru_cache(maxsize=256)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_file(name), size)


def _near(r: random.Random, colour: tuple[int, ...], by: int) -> tuple[int, ...]:
    return tuple(max(0, min(255, c + r.randint(-by, by))) for c in colour)


def _ground(r: random.Random, ink: tuple[int, ...]) -> tuple[int, ...]:
    """A background from which the ink stands out."""
    while True:
        x = r.random()
        if x < 0.45:
            ground = (255, 255, 255)
        elif x < 0.6:
            ground = (0, 0, 0)
        elif x < 0.85:
            ground = (r.randint(30, 240),) * 3
        else:
            ground = tuple(r.randint(195, 255) for _ in range(3))
        if math.dist(ground, ink) > 110:
            return ground


def _corners(shape: str, x: float, y: float, size: float, turn: float) -> list[tuple[float, float]]:
    n, inner = {"square": (4, 1.0), "triangle": (3, 1.0), "star": (10, 0.42)}[shape]
    start = turn + (math.pi / 4 if shape == "square" else -math.pi / 2)
    return [(x + size * (inner if k % 2 and n == 10 else 1.0) * math.cos(start + 2 * math.pi * k / n),
             y + size * (inner if k % 2 and n == 10 else 1.0) * math.sin(start + 2 * math.pi * k / n)) for k in range(n)]


def _places(r: random.Random, n: int) -> list[tuple[float, float, float]]:
    """Centres and sizes that neither touch each other nor the border, in parts of the side."""
    while True:
        size = r.uniform(*{1: (0.2, 0.44), 2: (0.15, 0.24), 3: (0.12, 0.2), 4: (0.11, 0.18)}[n])
        found: list[tuple[float, float, float]] = []
        for _ in range(40):
            s = size * r.uniform(0.85, 1.0)
            x, y = r.uniform(s + 0.02, 0.98 - s), r.uniform(s + 0.02, 0.98 - s)
            if all(math.hypot(x - a, y - b) > s + t + 0.03 for a, b, t in found):
                found.append((x, y, s))
            if len(found) == n:
                return found


def _draw_shapes(r: random.Random, d: ImageDraw.ImageDraw, p: Picture, ink: tuple[int, ...]) -> None:
    lean = r.uniform(-1, 1) * {"square": 0.3, "triangle": 0.35, "star": 0.35, "circle": 0}[p.shape]
    side = d.im.size[0]
    for x, y, s in _places(r, p.number):
        x, y, s = x * side, y * side, s * side
        if p.shape == "circle":
            d.ellipse((x - s, y - s, x + s, y + s), fill=ink)
        else:
            d.polygon(_corners(p.shape, x, y, s, lean), fill=ink)


def _draw_digit(r: random.Random, image: Image.Image, p: Picture, ink: tuple[int, ...], fonts: tuple[str, ...]) -> None:
    side = image.width
    font = _font(r.choice(fonts), round(side * r.randrange(47, 117, 5) / 100))
    mask = Image.new("L", image.size)
    box = font.getbbox(str(p.number))
    w, h = box[2] - box[0], box[3] - box[1]
    x, y = (r.randint(side // 32, max(side // 32, side - n - side // 32)) for n in (w, h))
    ImageDraw.Draw(mask).text((x - box[0], y - box[1]), str(p.number), font=font, fill=255)
    mask = mask.rotate(r.uniform(-10, 10), resample=Image.Resampling.BILINEAR, center=(x + w / 2, y + h / 2))
    image.paste(Image.new("RGB", image.size, ink), mask=mask)


def render(p: Picture, r: random.Random, test: bool = False, side: int = SIDE) -> Image.Image:
    """A picture of side x side pixels; `test`: digits in fonts kept for testing."""
    ink = _near(r, COLOURS[p.colour], 14)
    image = Image.new("RGB", (_FINER * side, _FINER * side), _ground(r, ink))
    if p.shape == "digit":
        _draw_digit(r, image, p, ink, TEST_FONTS if test else FONTS)
    else:
        _draw_shapes(r, ImageDraw.Draw(image), p, ink)
    image = image.resize((side, side), Image.Resampling.BOX if r.random() < 0.5 else Image.Resampling.BILINEAR)
    if r.random() < 0.4:
        noise = np.random.default_rng(r.randrange(1 << 30)).normal(0, r.uniform(1, 9), (side, side, 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    return image


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=10)
    p.add_argument("--out", default="pictures")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--test", action="store_true", help="fonts kept for testing")
    a = p.parse_args()
    File(a.out).mkdir(exist_ok=True)
    r = random.Random(a.seed)
    for i in range(a.count):
        what = draw_what(r)
        render(what, r, a.test).save(File(a.out) / f"{i:04d}-{what.number}-{what.colour}-{what.shape}.png")


if __name__ == "__main__":
    main()
