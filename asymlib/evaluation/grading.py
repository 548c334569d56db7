r"""When two answers are equal: math-verify on each value, after one table of rewrites and by the shape of the whole.

    equal(["x>5"], r"(5,\infty)")

A box may hold a value, a tuple or interval `(a,b]`, a set `\{a,b\}` or a bare list `a, b`. Shapes are compared here: as many
values, in order for tuples and intervals, in any order for sets. A bare list is a set too, unless it is `ordered`. Values are
compared by math-verify, and numbers that it calls equal must agree in relative terms as well. `reward.py` runs this file in
processes of its own, by path, so it imports nothing of asymlib.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import yaml
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from math_verify.grader import is_relation, unwrap_fcs
from sympy import Basic, Expr, FiniteSet, Float, I, Intersection, Set, Union

DEEPEST = 20  # brackets in one another: each costs math-verify tens of milliseconds; the real golds have at most 3
_TABLE = yaml.safe_load(Path(__file__).with_name("rewrites.yaml").read_text(encoding="utf-8"))
REWRITES = [
    (pattern.replace("UNITS", _TABLE["units"]).replace("POWERS", _TABLE["powers"]), *rest)
    for pattern, *rest in _TABLE["answers"]
]
_SIGNS = str.maketrans(_TABLE["signs"])
_MARKS = list(map(re.compile, _TABLE["marks"]))
_COMPILED = [(re.compile(pattern), new) for pattern, new, _ in REWRITES]
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|.", re.DOTALL)
_DEPTH = {"(": 1, "[": 1, "{": 1, r"\{": 1, ")": -1, "]": -1, "}": -1, r"\}": -1}
_COMMAS = (",", ";", r"\lor", r"\land")
_NAME = re.compile(r"\s*(\\?[A-Za-z][A-Za-z\d\s\\{}_',()]*)=\s*([^=]+)")
_FUNCTION = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln|sqrt|frac|lim|sum|int)|<|>")
_SYMBOL = re.compile(r"(?<![\\A-Za-z])[A-Za-z]|\\(?!frac|sqrt|cdot|times)|_|^$")  # what a number without a unit does not have
_BASE = re.compile(r"(-?[0-9A-Z]+)_\{?(\d+)\}?")
_SUBSCRIPT = re.compile(r"(?<=\d)_\{?(\d+)")
_MERIDIEM = re.compile(r"(?<=\d)([ap])\.?m\.?$", re.IGNORECASE)
_RELATION = re.compile(r"<|>|\\(?:le|ge|neq?|cup|in|setminus|mathbb)(?![A-Za-z])")
_LATEX = LatexExtractionConfig(normalization_config=NormalizationConfig(units=False, malformed_operators=True, nits=True))


class Value(NamedTuple):
    """What a box holds: items, and their brackets: "" for a bare list or one value, r"\\{\\}" for a set, else as written."""

    brackets: str
    items: tuple[str, ...]

    @property
    def is_list(self) -> bool:
        return len(self.items) > 1 and self.brackets in ("", r"\{\}")


def equal(boxes: Sequence[str], truth: str) -> bool:
    """Whether the last box equals `truth` or, if that is a list, all boxes do; with "respectively" at its end, in its order."""
    gold = normalised(truth)
    if any(max(_depths(text), default=0) > DEEPEST for text in (*boxes, truth)):
        return _flat(normalised(boxes[-1])) == _flat(gold)
    joined = len(boxes) > 1 and value(gold).is_list
    if "respectively" in truth:
        gold = f"({gold})"
    return (joined and _same(normalised(", ".join(boxes)), gold)) or _same(normalised(boxes[-1]), gold)


def _depths(text: str) -> list[int]:
    """How many brackets are open after each token."""
    return list(accumulate(_DEPTH.get(token, 0) for token in _TOKEN.findall(text)))


@lru_cache(4096)
def normalised(text: str) -> str:
    text = text.translate(_SIGNS)
    for pattern, new in _COMPILED:
        text = pattern.sub(_ungrouped if new is None else new, text)
    return text.strip()


def _ungrouped(text: re.Match) -> str:
    return _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text[0])


def value(text: str) -> Value:
    """The shape of a normalised text."""
    tokens = _TOKEN.findall(text)
    if tokens and tokens[0] in ("(", "[", r"\{") and tokens[-1] in (")", "]", r"\}") and 0 not in _depths(text)[:-1]:
        items = split("".join(tokens[1:-1]))
        if len(items) > 1 or tokens[0] == r"\{":
            return Value(tokens[0] + tokens[-1], items)
    return Value("", split(text))


def split(text: str, at: Sequence[str] = _COMMAS) -> tuple[str, ...]:
    """The items of a list, brackets kept whole; `\\pm a` is two."""
    items, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += _DEPTH.get(token, 0)
        if depth == 0 and token in at:
            items.append("")
        else:
            items[-1] += token
    return tuple(form for item in map(str.strip, items) if item for form in _signed(item))


def _signed(item: str) -> list[str]:
    if r"\pm" not in item:
        return [item]
    return [re.sub(r"^\+", "", re.sub(r"\\pm\s*", sign, item.replace(r"\mp", other))) for sign, other in ("+-", "-+")]


def ordered(items: Sequence[str]) -> bool:
    """Whether a bare list tells an order: three or more whole numbers, none negative or twice, that are not sorted.

    `2,4,3` answers "T(10), T(11) and T(12)". Other bare lists are sets, unless `golds.py`, which reads the problem, marks them.
    """
    numbers = [int(item) for item in items if item.isdecimal()]
    return 2 < len(items) == len(set(numbers)) and numbers not in (sorted(numbers), sorted(numbers, reverse=True))


def _same(answer: str, gold: str) -> bool:
    if _flat(answer) == _flat(gold):
        return True
    answer, gold = map(_only, _unnamed(answer, gold))
    if any(bool(mark.search(answer)) != bool(mark.search(gold)) for mark in _MARKS):
        return False
    a, t = value(answer), value(gold)
    if len(a.items) == len(t.items) == 1:
        return _holds(answer, gold) and (_same_value(answer, gold) or _same_set(answer, gold))
    if len(a.items) == len(t.items):
        if t.is_list and a.is_list and not (t.brackets == "" and ordered(t.items)):
            return _matched(a.items, t.items) or _same_set(answer, gold)
        in_order = a.brackets == t.brackets or {a.brackets, t.brackets} == {"", "()"}
        if in_order and all(map(_same, a.items, t.items)):
            return True
    if t.is_list and len(a.items) == 1 and len({_named(item)[1] for item in t.items if _named(item)[0]}) == 1:
        return all(_named(item)[0] for item in t.items) and _same(answer, _named(t.items[0])[1])  # all named have one value
    return _same_set(answer, gold)


def _matched(answers: Sequence[str], golds: Sequence[str]) -> bool:
    """Whether each gold is equal to an answer of its own."""
    left = list(map(normalised, answers))
    for gold in map(normalised, golds):
        found = next((answer for answer in left if _same(answer, gold)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _flat(text: str) -> str:
    return re.sub(r"\s", "", re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text))


def _named(text: str) -> tuple[str, str]:
    """Name and value of `name = value`; no name for anything else."""
    match = _NAME.fullmatch(text)
    return (match[1].strip(), match[2].strip()) if match and not _FUNCTION.search(match[1]) else ("", text)


def _unnamed(answer: str, gold: str) -> tuple[str, str]:
    """Both without `name =`; equations that name other things stay whole, as `y=2x+1` and `2x-y+1=0` do."""
    (a_name, a), (t_name, t) = _named(answer), _named(gold)
    if "=" in answer and "=" in gold and _flat(a_name) != _flat(t_name):
        a, t = answer, gold
    return normalised(a), normalised(t)


def _only(text: str) -> str:
    """The value of a set of one."""
    brackets, items = value(text)
    return normalised(items[0]) if brackets == r"\{\}" and len(items) == 1 else text


def _holds(answer: str, gold: str) -> bool:
    r"""Whether sides that are numbers are the gold: of an equation math-verify takes the right side.

    Not looked at where the gold has \pi, for `30=\frac{\pi}{6}` had a sign of degrees.
    """
    if "=" not in answer or "=" in gold or r"\pi" in gold:
        return True
    sides = [side.strip() for side in answer.split("=")]
    return all(_same_value(side, gold) for side in sides if not _SYMBOL.search(side))


def _same_value(a: str, t: str) -> bool:
    if _flat(a) == _flat(t):
        return True
    numbers = _number(a), _number(t)
    if None not in numbers:
        x, y = numbers
        near = round(x, 6) == round(y, 6) and abs(x - y) <= abs(y) / 10**5  # six decimals, as math-verify, and relative
        return near if "." in (a + t).replace(r"\overline", "") else x == y
    times = _MERIDIEM.search(_flat(a)), _MERIDIEM.search(_flat(t))
    if any(times):
        halves = {time[1].lower() for time in times if time}
        return bool(times[0]) and len(halves) == 1 and _MERIDIEM.sub("", _flat(a)) == _MERIDIEM.sub("", _flat(t))
    ratios = a.split(":"), t.split(":")
    if max(map(len, ratios)) > 2:  # math-verify divides from left to right, and 1:2:3 is 1:3:2
        return len(ratios[0]) == len(ratios[1]) and all(map(_same, *ratios))
    bases = _BASE.fullmatch(a), _BASE.fullmatch(t)
    if any(bases):
        (digits, base), (t_digits, t_base) = [m.groups() if m else (s, None) for m, s in zip(bases, (a, t), strict=True)]
        return digits == t_digits and base in (None, t_base or "10")  # an answer may leave out the base that was asked for
    subscripts, t_subscripts = [sorted(_SUBSCRIPT.findall(text)) for text in (a, t)]
    if subscripts and subscripts != (t_subscripts or ["10"] * len(subscripts)):  # other bases
        return False
    parsed = _parsed(t), _parsed(a)
    names = {name for side in parsed for part in side[:1] for name in getattr(part, "free_symbols", ())}
    if set(map(str, names)) == {"i"}:  # alone it is no variable
        parsed = tuple(
            [part.subs(dict.fromkeys(names, I)) if isinstance(part, Expr) else part for part in side] for side in parsed
        )
    return verify(*parsed, allow_set_relation_comp=True, timeout_seconds=None) and all(map(_near, *parsed))


_NUMBER = re.compile(r"([+-]?)\s*(?:(\d+|\d*\.\d+)|(\d+)\s*/\s*(\d+)|\\frac\{\s*(-?\d+)\s*\}\{\s*(-?\d+)\s*\})")
_REPEATING = re.compile(r"(\d*\.(\d*))\\overline\s*\{(\d+)\}")


def _number(text: str) -> Fraction | None:
    """A whole number, decimal or fraction, as most answers are: no need to ask math-verify."""
    if match := _REPEATING.fullmatch(text.lstrip("-")):
        below = (10 ** len(match[3]) - 1) * 10 ** len(match[2])
        return (-1 if text[0] == "-" else 1) * (Fraction(f"{match[1]}0") + Fraction(int(match[3]), below))
    if not (match := _NUMBER.fullmatch(text)):
        return None
    above, below, *_ = [part for part in match.groups()[1:] if part] + ["1"]
    return (-1 if match[1] == "-" else 1) * Fraction(above) / int(below) if int(below) else None


@lru_cache(4096)
def _parsed(text: str) -> list:
    # As LaTeX only: math-verify's plain expressions go through sympy's parse_expr, which evaluates Python.
    return parse(f"\\boxed{{{text}}}", [_LATEX], fallback_mode="no_fallback", parsing_timeout=None)


def _near(t: Basic, a: Basic) -> bool:
    """False for two values that differ in relative terms, or as terms of a sum do: math-verify takes 2^-99 for 2^-98."""
    if not (isinstance(a, Expr) and isinstance(t, Expr)):
        return True
    if a.is_infinite or t.is_infinite:
        return a == t
    rounded = a.has(Float) or t.has(Float)
    rest = (a - t).doit()  # equal terms go; nothing is expanded, which could take for ever
    if rest.is_Rational:
        return rest == 0
    if a.is_number and t.is_number:
        tolerance = 1e-5 if rounded else 1e-35  # of 40 digits
        return bool(abs(rest.evalf(40)) <= tolerance * abs(t.evalf(40)))
    return rounded or not rest.is_number or bool(abs(rest.evalf(60)) <= 1e-50)


def _same_set(answer: str, gold: str) -> bool:
    """Whether inequalities, intervals and unions of them are the same set of real numbers."""
    if not (_RELATION.search(answer) or _RELATION.search(gold)):
        return False
    try:
        (a, a_names), (t, t_names) = _as_set(answer), _as_set(gold)
        return (not a_names or not t_names or a_names == t_names) and bool(a == t or a.symmetric_difference(t).is_empty)
    except Exception:  # sympy's for what it cannot solve, such as two variables
        return False


def _as_set(text: str) -> tuple[Set, set]:
    """The set and the names of its variables. Commas between inequalities are "and" where that leaves a number, else "or"."""
    sets, names, relations = [], set(), 0
    for piece in split(text, (*_COMMAS, r"\cup")):
        (parsed,) = _parsed(normalised(piece))
        if is_relation(parsed):
            names |= {str(symbol) for symbol in parsed.free_symbols}
            parsed, relations = unwrap_fcs(parsed).as_set(), relations + 1
        sets.append(parsed if isinstance(parsed, Set) else FiniteSet(parsed))
    if r"\lor" not in text and r"\cup" not in text:
        both = Intersection(*sets)
        if r"\land" in text or (relations == len(sets) and not both.is_empty):
            return both, names
    return Union(*sets), names
