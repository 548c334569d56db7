r"""Training problems that are test problems too, found by overlap and by fuzzy ratio, and siblings with other numbers left in.

Two texts are compared as letters, digits and operators: LaTeX's spacing, sizes, text commands and figures are left out.
- Ratio: rapidfuzz's, 0 to 100; below `SIMILARITY` two problems differ. A picture ([asy] code) that both have must reach it too.
- Overlap: of numbers (figures or words), operators, functions and words in capitals. If each text has some that the other
  lacks, or one has many more (two, where all other words are the same), they are siblings: one question about other numbers.
  So they are if each picture has numbers that the other lacks, but those that only set its size or the pen.

Measured on MATH's training set and the five test sets by `tests/evaluation/test_decontamination.py`. A sibling that differs
in plain words only ("the balls are distinguishable") counts as the same problem: better one training problem too few.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rapidfuzz import fuzz, process

from ..support.yaml12 import read_yaml

SIMILARITY = 80  # our choice: a text with every eighth word changed has about 85
EXTRA = 3  # numbers and operators that one text may have more than the other, or a third of its own

_FIGURE = re.compile(r"\[asy\].*?(?:\[/asy\]|\Z)", re.DOTALL)
_LOOKS = re.compile(r"(?:size|width|scale|opacity)\s*\([^()]*\)?|[\d.]+\s*(?:cm|mm|inch|pt)\b")  # a figure's size and pen
_TABLE = read_yaml(Path(__file__).with_name("rewrites.yaml"))
_REWRITES = [(re.compile(pattern, re.DOTALL), new) for pattern, new, _ in _TABLE["problems"]]
NUMBERS = {word: str(n) for n, word in enumerate(_TABLE["numbers"].split(), 2)}
_TOKEN = re.compile(_TABLE["tokens"].replace("NUMBERS", "|".join(NUMBERS)), re.IGNORECASE)


class Match(NamedTuple):
    """The test problem that a training problem repeats."""

    test: int
    similarity: float  # 100 where the texts are the same


class _Text(NamedTuple):
    letters: str
    words: list[str]
    tokens: Counter[str]
    figure: str
    drawn: Counter[str]  # the figure's numbers


def repeated(train: Sequence[str], tests: Sequence[str]) -> dict[int, Match]:
    """For each training problem that is also a test problem, by its place, the nearest such test problem."""
    ours, theirs = list(map(_read, train)), list(map(_read, tests))
    letters = [text.letters for text in ours], [text.letters for text in theirs]
    ratio_RT = process.cdist(*letters, scorer=fuzz.ratio, score_cutoff=SIMILARITY, dtype=np.float32, workers=-1)
    found: dict[int, Match] = {}
    for row, test in zip(*map(np.ndarray.tolist, ratio_RT.nonzero()), strict=True):
        similarity = round(float(ratio_RT[row, test]), 1)
        nearer = row not in found or similarity > found[row].similarity
        if nearer and not _siblings(ours[row], theirs[test]):
            found[row] = Match(test, similarity)
    return found


def _read(problem: str) -> _Text:
    text = problem
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    code = " ".join(_FIGURE.findall(problem))
    figure = re.sub(r"\s", "", code)
    drawn = Counter(re.findall(r"\d+(?:\.\d+)?|\.\d+", _LOOKS.sub(" ", code)))
    tokens = [NUMBERS.get(match.lower(), match) for match in _TOKEN.findall(text)]
    counted = Counter(token for token in tokens if not token.isalpha() or token.isupper())
    letters = re.sub(r"[^\w\\+\-*/=<>^|!]", "", text).lower()
    words = re.findall(r"(?<![\\A-Za-z])[a-z]{3,}", text.lower())
    return _Text(letters, words, counted, figure, drawn)


def _siblings(ours: _Text, theirs: _Text) -> bool:
    more, fewer = _differences(ours.tokens, theirs.tokens)
    allowed = 1 if ours.words == theirs.words else max(EXTRA, max(ours.tokens.total(), theirs.tokens.total()) / 3)
    if (more and fewer) or max(more, fewer) > allowed:
        return True
    if not (ours.figure and theirs.figure):
        return False
    return all(_differences(ours.drawn, theirs.drawn)) or fuzz.ratio(ours.figure, theirs.figure) < SIMILARITY


def _differences(ours: Counter, theirs: Counter) -> tuple[int, int]:
    """How many each has that the other lacks."""
    return (ours - theirs).total(), (theirs - ours).total()
