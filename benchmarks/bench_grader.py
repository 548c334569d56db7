r"""What the grader reaches on the real sets: golds against themselves, rewritten, against each other; and what a grade costs.

    python benchmarks/bench_grader.py FOLDER [PAIRS]      # copies of the sets, as `asymlib data prepare --from` takes it

Golds are those that `asymlib data prepare` writes. A rewrite is mechanical and keeps the value; it counts where it changes the
text. CPU seconds are the checkers' own, measured from outside.
"""

import itertools
import random
import re
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pyarrow.parquet as pq
from common import conditions, report

from asymlib.evaluation.data import prepare
from asymlib.evaluation.golds import IN_ORDER
from asymlib.evaluation.grading import normalised, ordered, value
from asymlib.evaluation.reward import CHECKERS, compute_score
from asymlib.evaluation.sets import DATASETS

PAIRS, SEED = 50_000, 0  # pairs a set at most: 50,000 are 350 CPU seconds
PROMPTS, ROLLOUTS, CORES = 512, 8, 16  # a step of the paper has 4,096 answers
_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
_DOLLAR = re.compile(r"(?<!\\)\$")
_WHOLE = re.compile(r"\d+")
_NO_LIST = re.compile(r"[^,;=]*")
_OPERATOR = re.compile(r"(?<=[\w})])\s*([+\-=])\s*(?=[\w\\({])")
_ANGLE = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")  # \tan 15 is another number than \tan 15^\circ
_THOUSANDS = re.compile(r"\d{4,}")


def grouped(gold: str, comma: str) -> str:
    return re.sub(r"\B(?=(?:\d{3})+$)", lambda _: comma, gold) if _THOUSANDS.fullmatch(gold) else gold


def items(gold: str) -> list[str]:
    """The values of a list in any order, or none."""
    shape = value(normalised(gold))
    bare = shape.brackets == "" and len(shape.items) > 1 and r"\pm" not in gold and IN_ORDER not in gold
    bare = bare and not ordered(shape.items)
    return list(shape.items) if bare else []


def joined(gold: str, between: str, backwards: bool = False) -> str:
    values = items(gold)
    return between.join(values[::-1] if backwards else values) or gold


def if_single(gold: str, pattern: str) -> str:
    plain = _NO_LIST.fullmatch(gold) and not re.search(r"text|mbox|_|[<>]|\\(?:le|ge|in|infty|cup|pm|begin)", gold)
    return pattern.format(gold) if plain else gold


def named(gold: str, pattern: str) -> str:
    """A name before a tuple, an interval or a set."""
    plain = value(normalised(gold)).brackets and IN_ORDER not in gold and not re.search(r"[=<>]|\\(?:le|ge|in|mid)", gold)
    return pattern.format(gold) if plain else gold


def each_named(gold: str) -> str:
    values = items(gold)
    return ", ".join(f"x={item}" for item in values) if values and not re.search("[A-Za-z]{2}|=", gold) else gold


def swapped(gold: str) -> str:
    sides = gold.split("=")
    return f"{sides[1]} = {sides[0]}" if len(sides) == 2 and not re.search(r"[,;&]|\\(?:text|mbox)", gold) else gold


# Each keeps the value of a gold that it can rewrite, and returns others as they are.
REWRITES = {
    "spaces at operators": lambda g: _OPERATOR.sub(r" \1 ", g),
    "no spaces at operators": lambda g: _OPERATOR.sub(r"\1", g),
    r"\dfrac": lambda g: g.replace(r"\frac", r"\dfrac"),
    r"\tfrac": lambda g: re.sub(r"\\d?frac", r"\\tfrac", g),
    "a/b": lambda g: _FRACTION.sub(r"\1/\2", g) if _FRACTION.fullmatch(g.lstrip("-")) else g,
    "sign in the numerator": lambda g: re.sub(r"^-\\frac\{(\d+)\}", r"\\frac{-\1}", g),
    r"\left and \right": lambda g: re.sub(r"(?<!left)\(", r"\\left(", re.sub(r"(?<!right)\)", r"\\right)", g)),
    "dollars": lambda g: f"${g}$",
    r"\displaystyle": lambda g: rf"\displaystyle {g}",
    "full stop": lambda g: f"{g}.",
    "x=": lambda g: if_single(g, "x={}") if not re.search("[A-Za-z]", re.sub(r"\\[a-z]+", "", g)) else g,
    "a unit": lambda g: rf"{g}\text{{ cm}}" if _WHOLE.fullmatch(g) else g,
    "a unit after ~": lambda g: rf"{g}~\mathrm{{units}}" if _WHOLE.fullmatch(g) else g,
    "20,000": lambda g: grouped(g, ","),
    r"20\,000": lambda g: grouped(g, r"\,"),
    "bold": lambda g: rf"\mathbf{{{g}}}" if _WHOLE.fullmatch(g) else g,
    "no degrees": lambda g: g if _ANGLE.search(g) else re.sub(r"\^\s*\{?\\circ\}?", "", g),
    "list backwards": lambda g: joined(g, ", ", backwards=True),
    "list with and": lambda g: joined(g, r" \text{ and } "),
    "list in braces": lambda g: rf"\{{{joined(g, ', ')}\}}" if items(g) else g,
    "x= before each": each_named,
    "P= before brackets": lambda g: named(g, "P={}"),
    "=": lambda g: if_single(g, "={}"),
    "one in braces": lambda g: if_single(g, r"\{{{}\}}"),
    "sides swapped": swapped,
    r"\lt and \gt": lambda g: g.replace("<", r" \lt ").replace(">", r" \gt "),
    r"\log_2 3": lambda g: re.sub(r"\\log\s*_\s*\{?\s*(\d)\s*\}?\s*(?!\d)", r"\\log_\1 ", g),
    "bare scripts": lambda g: re.sub(r"([_^])\s*\{\s*(\w)\s*\}\s*", r"\1\2 ", g),
}


def cpu_seconds() -> float:
    """Of the checkers that live and of those that a limit ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime + sum(sum(child.cpu_times()[:2]) for child in psutil.Process().children())


def graded(questions: list[tuple[str, str]]) -> tuple[list[float], float | None]:
    """Scores of (answer, gold) pairs, and the grades per CPU second of the checkers; none in half a second."""
    compute_score("train", r"\boxed{x+1}", "1+x")  # starts a checker
    started = cpu_seconds()
    with ThreadPoolExecutor(CHECKERS) as threads:
        scores = list(threads.map(lambda pair: compute_score("", rf"\boxed{{{pair[0]}}}", pair[1]), questions))
    seconds = cpu_seconds() - started
    return scores, len(questions) / seconds if seconds > 0.5 else None


def measured(name: str, golds: list[str], most: int) -> tuple[dict, dict]:
    """The row of the table, and the answers behind it."""
    plain = [_DOLLAR.sub("", gold) for gold in golds]
    itself, _ = graded(list(zip(plain, golds, strict=True)))
    rewritten = [(i, kind, new) for i, g in enumerate(plain) for kind, way in REWRITES.items() if (new := way(g)) != g]
    scores, rate = graded([(new, golds[i]) for i, _, new in rewritten])
    missed = [(i, kind, new) for (i, kind, new), score in zip(rewritten, scores, strict=True) if not score]
    pairs = list(itertools.combinations(sorted(set(golds)), 2))
    sample = pairs if len(pairs) <= most else random.Random(SEED).sample(pairs, most)
    alike, pair_rate = graded([(_DOLLAR.sub("", a), b) for a, b in sample])
    return {
        "set": name,
        "golds": len(golds),
        "itself": sum(itself) / len(golds),
        "rewrites": len(rewritten),
        "rewrites reached": sum(scores) / len(scores),
        "golds reached by all": 1 - len({i for i, _, _ in missed}) / len(golds),
        "pairs": len(sample),
        "of all pairs": len(pairs),
        "ones": int(sum(alike)),
        "rewrites a CPU second": rate,
        "pairs a CPU second": pair_rate,
    }, {
        "not itself": [gold for gold, score in zip(golds, itself, strict=True) if not score],
        "missed": [(golds[i], kind, new) for i, kind, new in missed],
        "ones": [pair for pair, score in zip(sample, alike, strict=True) if score],
    }


def step(golds: list[str]) -> dict:
    """What a step costs: of each prompt's answers half are rewrites of its gold and half are golds of other problems."""
    draw, questions = random.Random(SEED), []
    for gold in draw.sample(golds, PROMPTS):
        plain = _DOLLAR.sub("", gold)
        rewrites = [new for way in REWRITES.values() if (new := way(plain)) != plain]
        right = draw.choices(rewrites or [plain], k=ROLLOUTS // 2)
        wrong = [_DOLLAR.sub("", other) for other in draw.choices(golds, k=ROLLOUTS // 2)]
        questions += [(answer, gold) for answer in right + wrong]
    started = time.perf_counter()
    scores, rate = graded(questions)
    clock, cpu = time.perf_counter() - started, len(questions) / rate
    return {"answers": len(questions), "ones": sum(scores), "checkers": CHECKERS, "seconds by the clock": clock} | {
        "CPU seconds": cpu,
        f"CPU seconds / {CORES} cores": cpu / CORES,
    }


def main(copies: Path, most: int = PAIRS) -> None:
    about = conditions(1, "CPU seconds of the checkers")
    about["clock"] = about["clock"].replace("medians of 1 interleaved repeats", "once")
    started, rows, seen = time.perf_counter(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), copies, report=lambda line: None)
        for name in DATASETS:
            truths = pq.read_table(Path(folder) / f"{name}.parquet")["reward_model"].to_pylist()
            golds = [truth["ground_truth"] for truth in truths]
            if name == "train":
                about["step"] = step(golds)
            row, seen[name] = measured(name, golds, most)
            rows.append(row)
    report(
        "grader", f"{len(REWRITES)} rewrites, {time.perf_counter() - started:.0f} s by the clock", rows, about | {"seen": seen}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
