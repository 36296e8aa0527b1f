"""Generator of the closed world: short dialogues of a little assistant called "Pleiad demo".

Every question has one right answer, so that greedy decoding can be scored by equality. A question carries a `key`
(phrasing x fact, number pair, or the name to copy); `held_out(key)` decides by hash whether it is kept for testing.

    python world.py --count 20            print training dialogues
    python world.py --count 20 --test     print held-out questions
"""
from __future__ import annotations

import argparse
import json
import random
import zlib
from dataclasses import dataclass
from typing import Callable

import facts as f
from phrases import ABOUT, REFUSAL, SMALL_TALK, UNKNOWN, UNKNOWN_FRAMES, UNKNOWN_OPEN

HELD_OUT_ONE_IN = 12
ALWAYS_TAUGHT = ("small_talk",)     # greetings cannot be guessed from other greetings


@dataclass
class QA:
    task: str
    key: str
    question: str
    answer: str
    short: str | None = None       # the one-word answer, where there is one
    exact: bool = False            # the text must be copied: no typos, no change of case
    follow: str | None = None      # how to ask the next thing of the same kind ("And of {}?")


def held_out(key: str) -> bool:
    return zlib.crc32(key.encode()) % HELD_OUT_ONE_IN == 0


def cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def an(word: str) -> str:
    return ("an " if word[0] in "aeiou" else "a ") + word


_CAPITAL = ["What is the capital of {}?", "What's the capital of {}?", "Which city is the capital of {}?", "Tell me the capital of {}.",
            "Name the capital of {}.", "Capital of {}?", "What is the capital city of {}?", "Do you know the capital of {}?",
            "The capital of {} is?", "Can you tell me the capital of {}?", "I need the capital of {}.", "{}: capital?",
            "Give me the capital city of {}.", "What city is the capital of {}?"]
_CAPITAL_OF = ["{} is the capital of which country?", "Which country has {} as its capital?", "What country is {} the capital of?",
               "Of which country is {} the capital?", "{} is the capital of what?", "Name the country whose capital is {}.",
               "Which country's capital is {}?"]
_CONTINENT = ["Which continent is {} in?", "On which continent is {}?", "What continent is {} on?", "Where is {}?",
              "In which part of the world is {}?", "Tell me the continent of {}."]


def capital(r: random.Random) -> QA:
    c = r.choice(list(f.CAPITALS))
    t = r.randrange(len(_CAPITAL))
    return QA("capital", f"cap|{t}|{c}", cap(_CAPITAL[t].format(f.named(c))), f"The capital of {f.named(c)} is {f.CAPITALS[c]}.",
              f.CAPITALS[c], follow="capital")


def capital_of(r: random.Random) -> QA:
    c = r.choice(list(f.CAPITALS))
    t = r.randrange(len(_CAPITAL_OF))
    return QA("capital_of", f"capof|{t}|{c}", _CAPITAL_OF[t].format(f.CAPITALS[c]), f"{f.CAPITALS[c]} is the capital of {f.named(c)}.", c)


def continent(r: random.Random) -> QA:
    c = r.choice(list(f.CONTINENTS))
    t = r.randrange(len(_CONTINENT))
    return QA("continent", f"cont|{t}|{c}", cap(_CONTINENT[t].format(f.named(c))), cap(f"{f.named(c)} is in {f.CONTINENTS[c]}."), f.CONTINENTS[c])


_SUM = {
    "+": ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}=?", "How much is {a} plus {b}?", "Add {a} and {b}.", "What is {a} plus {b}?",
          "Calculate {a} + {b}.", "{a} plus {b}?", "What is the sum of {a} and {b}?", "Compute {a}+{b}."],
    "-": ["What is {a} - {b}?", "{a} - {b}", "{a}-{b}=?", "How much is {a} minus {b}?", "Subtract {b} from {a}.", "What is {a} minus {b}?",
          "Calculate {a} - {b}.", "Take {b} from {a}.", "{a} minus {b}?", "Compute {a}-{b}."],
    "x": ["What is {a} x {b}?", "{a} x {b}", "{a} * {b}", "How much is {a} times {b}?", "Multiply {a} by {b}.", "What is {a} times {b}?",
          "Calculate {a} * {b}.", "{a} times {b}?", "{a}*{b}=?"],
}


def _result(a: int, op: str, b: int) -> int:
    return a + b if op == "+" else a - b if op == "-" else a * b


def _pair(r: random.Random, op: str, limit: int) -> tuple[int, int, str]:
    a, b = r.randint(0, limit), r.randint(0, limit)
    if op == "-" and a < b:
        a, b = b, a
    # Sums are held out as unordered pairs, so that a + b cannot be read off b + a.
    lo, hi = min(a, b), max(a, b)
    return a, b, f"{op}|{lo}|{hi}"


def _sum(r: random.Random, task: str, op: str, limit: int) -> QA:
    a, b, key = _pair(r, op, limit)
    value = _result(a, op, b)
    return QA(task, key, r.choice(_SUM[op]).format(a=a, b=b), f"{a} {op} {b} = {value}.", str(value), follow=f"sum {value}")


def add(r): return _sum(r, "add", "+", r.choice((20, 99, 99)))
def subtract(r): return _sum(r, "subtract", "-", r.choice((20, 99, 99)))
def add_large(r): return _sum(r, "add_large", "+", 999)


def several(r: random.Random) -> QA:
    """A list of sums: many of them in few tokens."""
    sums: list[tuple[int, str, int]] = []
    first = ""
    while len(sums) < 3:
        op = r.choice("+-")
        a, b, key = _pair(r, op, r.choice((20, 99, 99)))
        first = first or key
        if held_out(key) == held_out(first):
            sums.append((a, op, b))
    asked = ", ".join(f"{a} {op} {b}" for a, op, b in sums)
    told = ", ".join(f"{a} {op} {b} = {_result(a, op, b)}" for a, op, b in sums)
    return QA("several", first, r.choice(["Compute {}.", "Calculate {}.", "Solve these: {}.", "{}"]).format(asked), told + ".", exact=True)


def multiply(r: random.Random) -> QA:
    a, b = (r.randint(0, 10), r.randint(0, 10)) if r.random() < 0.8 else (r.randint(1, 99), 10)
    # A product is a fact; only one order of a pair is held out, the other is seen.
    key = f"x|{a}|{b}" if a < b < 10 or b == 10 and a > 10 else "seen"
    return QA("multiply", key, r.choice(_SUM["x"]).format(a=a, b=b), f"{a} x {b} = {a * b}.", str(a * b))


def compare(r: random.Random) -> QA:
    limit = r.choice((20, 99, 99))
    a, b = r.sample(range(limit + 1), 2)
    hi, lo = max(a, b), min(a, b)
    key = f"cmp|{lo}|{hi}"
    t = r.randrange(8)
    if t < 3:
        q = ["Which is bigger, {} or {}?", "Which number is larger: {} or {}?", "What is greater, {} or {}?"][t].format(a, b)
        return QA("compare", key, q, f"{hi} is bigger than {lo}.", str(hi))
    if t < 5:
        q = ["Which is smaller, {} or {}?", "Which number is less: {} or {}?"][t - 3].format(a, b)
        return QA("compare", key, q, f"{lo} is smaller than {hi}.", str(lo))
    bigger = "bigger" if a > b else "smaller"
    if t < 7:
        yes = a > b
        q = ["Is {} bigger than {}?", "Is {} greater than {}?"][t - 5].format(a, b)
    else:
        yes, q = a < b, f"Is {a} smaller than {b}?"
    return QA("compare", key, q, f"{'Yes' if yes else 'No'}, {a} is {bigger} than {b}.", "Yes" if yes else "No")


def _name(r: random.Random) -> str:
    """A known first name, or one made of syllables: copying must not depend on having seen the name."""
    if r.random() < 0.4:
        return r.choice(f.NAMES)
    return _invented(r)


def _invented(r: random.Random) -> str:
    parts = [r.choice("b c d f g h j k l m n p r s t v w z br dr gr kr st tr ch sh th".split()) + r.choice("aeiou") for _ in range(r.randint(1, 2))]
    return cap("".join(parts) + r.choice(["n", "l", "r", "s", "", "ra", "na", "lo", "mi", "ki", "th", "x", "ndo", "tte", "sky"]))


def word_problem(r: random.Random) -> QA:
    name, thing = _name(r), r.choice(f.COUNTABLES)
    op = r.choice("++--x")
    limit = 9 if op == "x" else 40
    a, b = r.randint(2, limit), r.randint(2, limit)
    if op == "-" and a < b:
        a, b = b, a
    # The same key as in plain sums: a held-out pair appears in no story either.
    key = f"{op}|{min(a, b)}|{max(a, b)}"
    tail = r.choice([f"How many {thing} does {name} have now?", f"How many {thing} does {name} have?", f"How many {thing} are there now?"])
    if op == "+":
        story = r.choice(["{n} has {a} {t} and buys {b} more.", "{n} has {a} {t}. Then {n} gets {b} more.", "{n} finds {a} {t} and then {b} more."])
    elif op == "-":
        story = r.choice(["{n} has {a} {t} and gives away {b}.", "{n} has {a} {t} and loses {b}.", "{n} had {a} {t} and sold {b}."])
    else:
        story = r.choice(["{n} has {a} bags with {b} {t} each.", "{n} buys {a} boxes of {b} {t}."])
    value = _result(a, op, b)
    return QA("word_problem", key, story.format(n=name, a=a, b=b, t=thing) + " " + tail,
              f"{a} {op} {b} = {value}, so the answer is {value} {thing}.", str(value), exact=True)


_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen""".split()


def in_words(n: int) -> str:
    if n < 20:
        return _ONES[n]
    return _TENS[n // 10] + ("-" + _ONES[n % 10] if n % 10 else "")


def numbers(r: random.Random) -> QA:
    t, n = r.randrange(6), r.randint(1, 98)
    key = f"num|{t}|{n}"
    if t == 0:
        return QA("numbers", key, r.choice([f"Write {n} in words.", f"How do you write {n} in words?"]), f"{n} is {in_words(n)}.", in_words(n))
    if t == 1:
        return QA("numbers", key, r.choice([f"What number comes after {n}?", f"What comes after {n}?"]), f"After {n} comes {n + 1}.", str(n + 1))
    if t == 2:
        return QA("numbers", key, r.choice([f"What number comes before {n}?", f"What comes before {n}?"]), f"Before {n} comes {n - 1}.", str(n - 1))
    if t == 3:
        kind = "even" if n % 2 == 0 else "odd"
        return QA("numbers", key, r.choice([f"Is {n} even or odd?", f"Is {n} odd or even?"]), f"{n} is {kind}.", cap(kind))
    if t == 4:
        n = n % 50
        return QA("numbers", f"num|4|{n}", r.choice([f"What is double {n}?", f"What is twice {n}?"]), f"Double {n} is {2 * n}.", str(2 * n))
    a, b = n % 30, n % 30 + r.randint(2, 8)
    return QA("numbers", f"num|5|{a}|{b}", r.choice([f"Count from {a} to {b}.", f"Count {a} to {b}"]), ", ".join(map(str, range(a, b + 1))) + ".")


_DEFINE = ["What is {}?", "What does {} mean?", "Define {}.", "Explain {}.", "What's {}?", "Tell me what {} is.", "Can you explain what {} is?",
           "Meaning of {}?", "Please define {}.", "What do you mean by {}?", "Give a definition of {}."]
_MASS = set("""bread water milk cheese honey sugar salt rice soup tea coffee rain snow wind ice grass money music gold iron glass wood wool
oil sand gravity light sound energy blood skin memory paper winter summer spring autumn morning night football chess sun moon sky
sea internet temperature speed fire cake dance stone fish cache""".split())


def define(r: random.Random) -> QA:
    w = r.choice(list(f.DEFINITIONS))
    t = r.randrange(len(_DEFINE))
    the = {"sun", "moon", "sky", "sea", "internet"}
    shown = f"the {w}" if w in the else w if w in _MASS or r.random() < 0.3 else an(w)
    head = f"the {w}" if w in the else w if w in _MASS else an(w)
    return QA("define", f"def|{t}|{w}", _DEFINE[t].format(shown), f"{cap(head)} is {f.DEFINITIONS[w]}.")


def opposite(r: random.Random) -> QA:
    a, b = r.choice(list(f.OPPOSITES.items()))
    frames = ["What is the opposite of {}?", "Opposite of {}?", "Give me the opposite of {}.", "What's the opposite of {}?",
              "Tell me the opposite of {}.", "Which word is the opposite of {}?", "{} is the opposite of what?"]
    t = r.randrange(len(frames))
    return QA("opposite", f"opp|{t}|{a}", cap(frames[t].format(a)), f"The opposite of {a} is {b}.", cap(b), follow="opposite")


def colour(r: random.Random) -> QA:
    a, b = r.choice(list(f.THING_COLOURS.items()))
    frames = ["What colour is {}?", "Which colour is {}?", "What is the colour of {}?", "Tell me the colour of {}.", "What color is {}?"]
    t = r.randrange(len(frames))
    return QA("colour", f"col|{t}|{a}", frames[t].format(a), f"{cap(a)} is {b}.", cap(b))


def sound(r: random.Random) -> QA:
    a, b = r.choice(list(f.SOUNDS.items()))
    frames = ["What does {} say?", "What sound does {} make?", "Which sound does {} make?", "How does {} sound?", "What noise does {} make?"]
    t = r.randrange(len(frames))
    return QA("sound", f"snd|{t}|{a}", frames[t].format(an(a)), f"{cap(an(a))} says {b}.", cap(b))


def plural(r: random.Random) -> QA:
    a, b = r.choice(list(f.PLURALS.items()))
    frames = ["What is the plural of {}?", "Plural of {}?", "Give me the plural of {}.", "One {}, two what?", "What's the plural of {}?",
              "How do you say more than one {}?"]
    t = r.randrange(len(frames))
    return QA("plural", f"plu|{t}|{a}", frames[t].format(a), f"The plural of {a} is {b}.", cap(b))


def unit(r: random.Random) -> QA:
    what, value = r.choice(f.UNITS)
    part, whole = what.split("|")
    frames = ["How many {p} are in {w}?", "How many {p} are there in {w}?", "How many {p} does {w} have?", "Number of {p} in {w}?",
              "How many {p} in {w}?", "{w}: how many {p}?"]
    t = r.randrange(len(frames))
    return QA("unit", f"unit|{t}|{what}", cap(frames[t].format(p=part, w=whole)), f"There are {value} {part} in {whole}.", value)


def calendar(r: random.Random) -> QA:
    kind = r.randrange(6)
    seq, what = (f.DAYS, "day") if kind in (0, 1) else (f.MONTHS, "month")
    i = r.randrange(len(seq))
    word = seq[i]
    if kind in (0, 2):
        frames = ["Which {s} comes after {w}?", "What {s} comes after {w}?", "What comes after {w}?", "Which {s} follows {w}?"]
        answer, short = f"After {word} comes {seq[(i + 1) % len(seq)]}.", seq[(i + 1) % len(seq)]
    elif kind in (1, 3):
        frames = ["Which {s} comes before {w}?", "What {s} comes before {w}?", "What comes before {w}?", "Which {s} is before {w}?"]
        answer, short = f"Before {word} comes {seq[i - 1]}.", seq[i - 1]
    elif kind == 4:
        frames = ["How many days are in {w}?", "How many days does {w} have?", "Days in {w}?"]
        answer, short = f"{word} has {f.MONTH_DAYS[word]} days.", f.MONTH_DAYS[word]
    else:
        frames = ["Which number is the month {w}?", "What number is {w} among the months?", "The month {w} is which number?"]
        answer, short = f"{word} is month number {i + 1}.", str(i + 1)
    t = r.randrange(len(frames))
    return QA("calendar", f"cal|{kind}|{t}|{word}", frames[t].format(s=what, w=word), answer, short)


_WORDS = sorted(w for w in set(f.DEFINITIONS) | set(f.OPPOSITES) | set(f.PLURALS) | set(f.COLOURS) if " " not in w and len(w) <= 5)


def spelling(r: random.Random) -> QA:
    w, t = r.choice(_WORDS), r.randrange(11)
    key = f"spell|{t}|{w}"
    if t < 4:
        q = ["Spell {}.", "Spell the word {}.", "How do you spell {}?", "Can you spell {}?"][t]
        return QA("spelling", key, q.format(w), "-".join(w) + ".", exact=True)
    if t < 8:
        q = ["Write {} in capitals.", "Write {} in upper case.", "Put {} in capital letters.", "Uppercase {}"][t - 4]
        return QA("spelling", key, q.format(w), w.upper(), exact=True)
    if t < 10:
        q = ["How many letters are in {}?", "How many letters does {} have?"][t - 8]
        return QA("spelling", key, q.format(w), f"The word {w} has {len(w)} letters.", str(len(w)), exact=True)
    return QA("spelling", key, f"What is the first letter of {w}?", f"The first letter of {w} is {w[0]}.", w[0].upper(), exact=True)


_ASK_JSON = ["Extract {k} as JSON: {s}", "Give me {k} as JSON: {s}", "Return JSON with {k}: {s}", "Turn this into JSON with {k}: {s}",
             "{s} Extract {k} as JSON.", "{s} Write {k} as JSON.", "JSON with {k}: {s}", "Make a JSON object with {k} from this text: {s}"]


def _fields(r: random.Random) -> tuple[dict[str, object], str, str]:
    """(fields, sentence, held-out key)."""
    n, kind = _name(r), r.randrange(6)
    age, city, col, item = r.randint(1, 99), r.choice(f.CITIES), r.choice(f.COLOURS), r.choice(f.ITEMS)
    if kind < 2:
        s = r.choice(["{} is {} years old.", "{} is {}.", "My friend {} is {} years old.", "This is {}, aged {}.", "{} turned {} today."]).format(n, age)
        return {"name": n, "age": age}, s, f"name|{n}"
    if kind == 2:
        if r.random() < 0.4:
            city = _invented(r)
        s = r.choice(["{} lives in {}.", "{} comes from {}.", "{} moved to {}.", "My neighbour {} works in {}."]).format(n, city)
        return {"name": n, "city": city}, s, f"name|{n}"
    if kind == 3:
        s = r.choice(["{n} is {a} years old and lives in {c}.", "{n}, aged {a}, comes from {c}.", "{n} from {c} is {a}."]).format(n=n, a=age, c=city)
        return {"name": n, "age": age, "city": city}, s, f"name|{n}"
    price = r.randint(1, 999 if r.random() < 0.4 else 99)
    if kind == 4:
        s = r.choice(["The {} costs {} dollars.", "{} for {} euros.", "I paid {1} dollars for the {0}.", "The price of the {} is {}."]).format(item, price)
        return {"item": item, "price": price}, cap(s), f"item|{item}|{price}"
    s = r.choice(["The {i} is {c} and costs {p} dollars.", "A {c} {i} for {p} euros.", "I bought a {c} {i} for {p}."]).format(i=item, c=col, p=price)
    return {"item": item, "colour": col, "price": price}, s, f"item|{item}|{price}"


def extract(r: random.Random) -> QA:
    fields, s, key = _fields(r)
    keys = list(fields)
    listed = " and ".join(keys) if len(keys) == 2 else ", ".join(keys[:-1]) + " and " + keys[-1]
    return QA("json", key, r.choice(_ASK_JSON).format(k=listed, s=s), json.dumps(fields), exact=True)


def _table(task: str, table: dict[str, tuple[list[str], str]]) -> Callable[[random.Random], QA]:
    def draw(r: random.Random) -> QA:
        name = r.choice(list(table))
        questions, answer = table[name]
        t = r.randrange(len(questions))
        # The first phrasing is always taught: it is the one that documentation shows.
        key = f"{task}|{name}|{t}" if t and task not in ALWAYS_TAUGHT else "seen"
        return QA(task, key, questions[t], answer)
    return draw


pleiad = _table("pleiad", ABOUT)
small_talk = _table("small_talk", SMALL_TALK)


def unknown(r: random.Random) -> QA:
    kind = r.random()
    if kind < 0.25:
        place = _invented(r)
        t = r.randrange(len(_CAPITAL))
        return QA("unknown", f"unk|{t}|{place}", _CAPITAL[t].format(place), REFUSAL)
    if kind < 0.35:
        w = _invented(r).lower()
        t = r.randrange(len(_DEFINE))
        return QA("unknown", f"unk|{t}|{w}", _DEFINE[t].format(r.choice([w, an(w)])), REFUSAL)
    if kind < 0.8:
        frame = r.choice(UNKNOWN_OPEN)
        text = frame.format(x=r.choice(list(f.DEFINITIONS)), n=r.choice([_invented(r), r.choice(f.CITIES)]))
        return QA("unknown", "unk|" + text, text, REFUSAL)
    if kind < 0.92:
        frame, topic = r.choice(UNKNOWN_FRAMES), r.choice(UNKNOWN)
        return QA("unknown", f"unk|{frame}|{topic}", frame.format(topic), REFUSAL)
    t = r.randrange(len(UNKNOWN))
    return QA("unknown", "seen", cap(UNKNOWN[t]) + "?", REFUSAL)


TASKS: dict[str, tuple[Callable[[random.Random], QA], float]] = {
    "capital": (capital, 1.7), "capital_of": (capital_of, 1.4), "continent": (continent, 0.7), "add": (add, 3.0), "subtract": (subtract, 3.0), "several": (several, 4.0),
    "multiply": (multiply, 1.4), "add_large": (add_large, 0.5), "compare": (compare, 1.4), "word_problem": (word_problem, 1.0),
    "numbers": (numbers, 1.0), "define": (define, 2.0), "opposite": (opposite, 0.7), "colour": (colour, 0.5), "sound": (sound, 0.5),
    "plural": (plural, 0.6), "unit": (unit, 0.6), "calendar": (calendar, 1.0), "spelling": (spelling, 2.2), "json": (extract, 2.2),
    "pleiad": (pleiad, 2.2), "small_talk": (small_talk, 1.3), "unknown": (unknown, 1.5),
}
_IN_CAPITALS = {"capital", "add", "subtract", "multiply", "compare", "opposite", "colour", "calendar"}

SYSTEM = {
    "one_word": ["Answer in one word.", "Reply with one word only.", "Use only one word.", "Answer with a single word."],
    "capitals": ["Answer in capitals.", "Write in capital letters.", "Answer in upper case.", "Use capital letters only."],
    "plain": ["You are a helpful assistant.", "Be polite.", "You are Pleiad demo.", "Answer the question.", "Be brief and clear."],
}


def draw(r: random.Random, test: bool = False, task: str | None = None) -> QA:
    """One question; with `test` a held-out one, otherwise never one."""
    names = list(TASKS)
    for _ in range(10000):
        name = task or r.choices(names, [w for _, w in TASKS.values()])[0]
        qa = TASKS[name][0](r)
        if held_out(qa.key) == test:
            return qa
    raise ValueError(f"no held-out question in task {task}")


_BEFORE = ["Please tell me: ", "Hey, ", "Hi! ", "Please, ", "Quick question: ", "Hello, ", "Tell me, ", "So, ", "OK, "]
_AFTER = [" Please.", " Thanks.", " please", " Thank you!"]


def _typo(r: random.Random, text: str) -> str:
    words = text.split(" ")
    spots = [i for i, w in enumerate(words) if len(w) > 4 and w.isalpha() and w.islower()]
    if not spots:
        return text
    i = r.choice(spots)
    w, j = words[i], r.randrange(1, len(words[i]) - 2)
    words[i] = r.choice([w[:j] + w[j + 1:], w[:j] + w[j + 1] + w[j] + w[j + 2:], w[:j] + w[j] + w[j:]])
    return " ".join(words)


def dress(r: random.Random, qa: QA) -> str:
    """The question as people type it: lower case, without the question mark, with a please or a typo."""
    q = qa.question
    if qa.exact:
        return r.choice(["Please: ", "Hi! "]) + q if r.random() < 0.05 else q
    fixed = qa.task in ("pleiad", "spelling", "define", "opposite", "plural", "unknown")
    if r.random() < 0.05 and not fixed:
        q = _typo(r, q)
    if r.random() < 0.12 and qa.task != "small_talk":
        q = r.choice(_BEFORE) + (q[0].lower() + q[1:] if q.split(" ")[0].lower() in ("what", "which", "how", "tell", "name", "give", "is") else q)
    if r.random() < 0.2:
        q = q.lower()
    if r.random() < 0.2 and len(q) > 1:
        q = q.rstrip("?.!")
    elif r.random() < 0.06 and qa.task != "small_talk":
        q += r.choice(_AFTER)
    return q


def _reply(qa: QA, mode: str) -> str | None:
    if mode == "one_word":
        return qa.short
    if mode == "capitals":
        # Capital letters are spelled piece by piece, so only a limited set of words is taught that way.
        known = qa.task in _IN_CAPITALS and (qa.task != "capital" or qa.key.split("|")[-1] in f.FAMOUS)
        return qa.answer.upper() if known else None
    return qa.answer


def _follow_up(r: random.Random, qa: QA) -> QA | None:
    if qa.follow == "capital":
        c = r.choice(list(f.CAPITALS))
        t = r.choice(["And of {}?", "What about {}?", "And {}?", "And the capital of {}?"])
        return QA("capital", f"follow|{c}", t.format(f.named(c)), f"The capital of {f.named(c)} is {f.CAPITALS[c]}.", f.CAPITALS[c], follow="capital")
    if qa.follow == "opposite":
        a, b = r.choice(list(f.OPPOSITES.items()))
        t = r.choice(["And of {}?", "What about {}?", "And {}?"])
        return QA("opposite", "seen", t.format(a), f"The opposite of {a} is {b}.", cap(b), follow="opposite")
    if qa.follow and qa.follow.startswith("sum "):
        a, op = int(qa.follow[4:]), r.choice("+-")
        b = r.randint(1, 20)
        if (op == "-" and b > a) or held_out(f"{op}|{min(a, b)}|{max(a, b)}"):
            return None
        frames = ["Now add {}.", "And plus {}?", "Add {} to that."] if op == "+" else ["Now subtract {}.", "And minus {}?", "Take {} from that."]
        value = _result(a, op, b)
        return QA("follow", "seen", r.choice(frames).format(b), f"{a} {op} {b} = {value}.", str(value), follow=f"sum {value}")
    return None


def _turns(r: random.Random, count: int, mode: str) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    name: str | None = None
    last: QA | None = None
    while len(turns) < count:
        if mode == "plain" and r.random() < 0.06:
            if name is None and (count > 1 or r.random() < 0.5):
                if r.random() < 0.25:
                    turns.append((r.choice(["What is my name?", "What's my name?", "Do you know my name?", "Who am I?"]), "You have not told me your name."))
                    continue
                name = _name(r)
                if held_out("name|" + name):
                    name = None
                    continue
                turns.append((r.choice(["My name is {}.", "I am {}.", "Hi, I'm {}.", "Call me {}.", "Hello, my name is {}."]).format(name),
                              f"Nice to meet you, {name}! How can I help you?"))
                continue
        if name and r.random() < 0.4:
            turns.append((r.choice(["What is my name?", "What's my name?", "Do you know my name?", "Who am I?"]), f"Your name is {name}."))
            continue
        qa = (_follow_up(r, last) if last and r.random() < 0.4 else None) or draw(r)
        answer = _reply(qa, mode)
        if answer is None:
            continue
        turns.append((dress(r, qa), answer))
        last = qa
    return turns


def dialogue(r: random.Random, long: bool = False) -> list[dict[str, str]]:
    """One training dialogue as chat messages."""
    count = r.randint(4, 12) if long else r.choices((1, 2, 3), (70, 20, 10))[0]
    mode = r.choices(("plain", "one_word", "capitals"), (86, 6, 8))[0]
    messages = []
    if mode != "plain" or r.random() < 0.06:
        messages.append({"role": "system", "content": r.choice(SYSTEM[mode])})
    for question, answer in _turns(r, count, mode):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def test_dialogue(r: random.Random, task: str, mode: str = "plain") -> list[dict[str, str]]:
    """One held-out question, undressed; `mode` adds the system message that asks for another form of answer."""
    while True:
        qa = draw(r, test=True, task=task)
        answer = _reply(qa, mode)
        if answer is not None:
            break
    head = [] if mode == "plain" else [{"role": "system", "content": r.choice(SYSTEM[mode])}]
    return head + [{"role": "user", "content": qa.question}, {"role": "assistant", "content": answer}]


def corpus(seed: int, count: int) -> list[str]:
    """Plain text of many dialogues, to learn the vocabulary from."""
    r = random.Random(seed)
    texts = [m["content"] for _ in range(count) for m in dialogue(r)]
    return texts + ["user", "model"] * count


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--count", type=int, default=10, help="how many dialogues to print")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--test", action="store_true", help="held-out questions, one per task and round")
    p.add_argument("--long", action="store_true", help="long dialogues")
    a = p.parse_args()
    r = random.Random(a.seed)
    for _ in range(a.count):
        for m in [test_dialogue(r, t) for t in TASKS] if a.test else [dialogue(r, a.long)]:
            print(json.dumps(m, ensure_ascii=False))


if __name__ == "__main__":
    main()
