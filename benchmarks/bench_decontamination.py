r"""Which planted problems `asymlib data prepare` drops: each problem of the real sets, changed, among all of them.

    python benchmarks/bench_decontamination.py FOLDER

FOLDER has copies of the sets as JSON lines, named as for `asymlib data prepare --from`.

The first four ways leave the problem what it is, and it should be found. The others make a sibling with other numbers, which
should not. A sibling may be found as another problem of the set, which it is sometimes; "as itself" counts the others.
"""

import json
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import conditions, report

from asymlib.evaluation.decontamination import NUMBERS, repeated
from asymlib.evaluation.sets import BENCHMARKS, DATASETS

VERBS = {"Find": "Determine", "Compute": "Work out", "What is": "State", "Determine": "Find", "Evaluate": "Compute"}
WORDS = list(NUMBERS)
_FIGURE = re.compile(r"(\[asy\].*?(?:\[/asy\]|\Z))", re.DOTALL)
_WORDS = re.compile(rf"\b(?:{'|'.join(WORDS[:-1])})\b", re.IGNORECASE)


def respaced(text: str) -> str:
    return re.sub(r"\s*([=+])\s*", r" \1  ", text).replace(r"\frac", r"\dfrac").replace("^2", "^{2}").replace("$", " $ ")


def reworded(text: str) -> str:
    return re.sub("|".join(VERBS), lambda match: VERBS[match[0]], text)


def every_eighth_word(text: str) -> str:
    draw = random.Random(text)
    return " ".join(draw.choice(["thing", "green"]) if i % 8 == 7 else word for i, word in enumerate(text.split()))


def other_numbers(text: str) -> str:
    return re.sub(r"\d+", lambda match: str(int(match[0]) + 3), text)


def one_other_number(text: str) -> str:
    parts = _FIGURE.split(text)  # a figure's code is every second part
    places = [(i, match.span()) for i in range(0, len(parts), 2) for match in re.finditer(r"\d+", parts[i])]
    if places:
        i, (start, end) = random.Random(text).choice(places)
        parts[i] = f"{parts[i][:start]}{int(parts[i][start:end]) + 3}{parts[i][end:]}"
    return "".join(parts)


def other_number_words(text: str) -> str:
    parts = _FIGURE.split(text)
    parts[::2] = [_WORDS.sub(lambda word: WORDS[WORDS.index(word[0].lower()) + 1], part) for part in parts[::2]]
    return "".join(parts)


PLANTED: dict[str, Callable[[str], str]] = {
    "exact": str,
    "respaced": respaced,
    "reworded verbs": reworded,
    "every 8th word changed": every_eighth_word,
    "other numbers": other_numbers,
    "one other number": one_other_number,
    "other number words": other_number_words,
}


def planted(texts: list[str], way: str) -> dict[str, int]:
    """How many texts `way` changes (all, for "exact"), how many of them are found, and how many as the text that they were."""
    changed = [(new, place) for place, text in enumerate(texts) if (new := PLANTED[way](text)) != text or way == "exact"]
    found = repeated([text for text, _ in changed], texts)
    itself = sum(texts[match.test] == texts[changed[row][1]] for row, match in found.items())
    return {"planted": len(changed), "found": len(found), "as itself": itself}


def main(copies: Path) -> None:
    about = conditions(1, "seconds")
    about["clock"] = about["clock"].replace("medians of 1 interleaved repeats", "once")
    started = time.perf_counter()
    sets = {name: _texts(name, copies / f"{name}.jsonl") for name in ("train", *BENCHMARKS)}
    tests = [text for name in BENCHMARKS for text in sets[name]]
    rows = [
        {"set": name, "way": way} | planted(texts, way)
        for name, texts in {"the five test sets": tests, "MATH, training": sets["train"]}.items()
        for way in PLANTED
    ]
    report("decontamination", f"{time.perf_counter() - started:.0f} s by the clock", rows, about)


def _texts(name: str, file: Path) -> list[str]:
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [row[DATASETS[name].problem].strip() for row in rows]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
