"""Test problems planted among training problems are found; siblings with other numbers stay."""

import json
from pathlib import Path

import pytest
from bench_decontamination import PLANTED, planted

from asymlib.evaluation.decontamination import repeated
from asymlib.evaluation.sets import BENCHMARKS, DATASETS

HUB = Path(__file__).resolve().parents[3] / "shared" / "hub"  # the sets are not ours to distribute
real = pytest.mark.skipif(not HUB.is_dir(), reason="the real sets are not here")


@pytest.mark.parametrize(
    ("train", "test", "same"),
    [
        ("What is $1+1$?", "what is $ 1 + 1 $?", True),
        (r"Find $\left(\dfrac12\right)$.", r"Find $(\frac12)$.", True),
        (r"How many pairs have \text{sum} $20,\!000$?", "How many pairs have sum $20000$?", True),
        ("What is $1+1$?", "What is $1-1$?", False),
        (r"Compute $\arcsin 1$ in radians.", r"Compute $\arcsin \left( -\frac{1}{2} \right)$ in radians.", False),
        (r"Find $\sin x$ if $\cos x = 0.5$.", r"Find $\tan x$ if $\cos x = 0.5$.", False),
        ("Tom has six boxes and two of them are red.", "Tom has five boxes and two of them are red.", False),
        (
            "In how many ways can the letters of TOOT be arranged?",
            "In how many ways can the letters of ELSE be arranged?",
            False,
        ),
        ('Find $x$. [asy]label("$93$",(1,2));[/asy]', 'Find $x$. [asy]label("$94$",(1,2));[/asy]', False),
        ("Find $x$. [asy]draw((0,0)--(4,1));[/asy]", "Find $x$. [asy]draw((0,0)--(3,1));[/asy]", False),
        ("Find $x$. [asy]size(3cm); draw((0,0)--(4,1));[/asy]", "Find $x$. [asy]size(99); draw((0,0)--(4,1));[/asy]", True),
        ("Find $x$. [asy]draw((0,0)--(1,1));[/asy]", "Find $x$. [asy]pair A=dir(4);fill(circle(A,7));[/asy]", False),
        ("Compute $a + b$ where $m/n$ is in lowest terms.", "Let $p$ be prime. How many primes are below $p$?", False),
    ],
)
def test_which_texts_are_the_same_problem(train, test, same):
    assert (0 in repeated([train], ["another one", test])) == same
    if same:
        assert repeated([train], ["another one", test])[0].test == 1


def test_the_nearest_test_problem_is_named_with_its_ratio():
    found = repeated(
        ["Find the sum of the digits of $99$."], ["Find a sum of all digits of $99$.", "Find the sum of the digits of $99$"]
    )
    assert found[0] == (1, 100.0)


def rows(name: str) -> list[str]:
    return [json.loads(line)[DATASETS[name].problem] for line in (HUB / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tests() -> list[tuple[str, int, str]]:
    return [(name, index, text) for name in BENCHMARKS for index, text in enumerate(rows(name))]


@real
@pytest.mark.parametrize(
    ("way", "least", "most"),
    [
        ("exact", 1.0, 1.0),
        ("respaced", 1.0, 1.0),
        ("reworded verbs", 0.99, 1.0),  # but problems of three words
        ("every 8th word changed", 0.96, 1.0),  # but where the eighth word is a long formula, or half of a figure's code
        ("other numbers", 0.0, 0.0),
        ("one other number", 0.0, 0.004),  # four are like another problem of the sets
        ("other number words", 0.0, 0.0),
    ],
)
def test_planted_problems(tests, way, least, most):
    counts = planted([text for _, _, text in tests], way)
    assert least <= counts["found"] / counts["planted"] <= most


def test_each_way_of_planting_changes_what_it_says():
    text = 'Find two numbers above $1+20$. [asy]label("9",(3,4)); import three;[/asy]'
    changed = {way: change(text) for way, change in PLANTED.items()}
    assert changed["other numbers"] == 'Find two numbers above $4+23$. [asy]label("12",(6,7)); import three;[/asy]'
    assert changed["one other number"] in (text.replace("$1", "$4"), text.replace("20", "23"))
    assert changed["other number words"] == text.replace("two", "three")


KNOWN = {
    4487: ("olympiadbench", 459), 4533: ("olympiadbench", 522), 6864: ("olympiadbench", 346), 304: ("math-500", 386),
    1509: ("math-500", 237), 3443: ("olympiadbench", 517), 4009: ("olympiadbench", 326), 7294: ("olympiadbench", 462),
    6140: ("math-500", 378),
}  # fmt: skip


@real
def test_test_problems_in_maths_training_set(tests):
    found = {row: tests[match.test][:2] for row, match in repeated(rows("train"), [text for _, _, text in tests]).items()}
    assert KNOWN.items() <= found.items()
    assert len(found) == 25  # the other sixteen differ in words or a letter, not in numbers
    boilerplate = {2070, 2101, 2125, 2133, 2145, 2148, 2157, 2160, 2259, 2959, 7032, 7109, 7147, 7240, 7355, 7444}
    siblings = {173, 781, 802, 820, 1376, 2033, 2516, 5642, 7136, 7163, 7269, 7287, 7302, 7474, 7048, 7158, 7208}
    assert not (boilerplate | siblings) & found.keys()


def test_the_docs_table_is_the_committed_one():
    root = Path(__file__).resolve().parents[2]
    rows = json.loads((root / "benchmarks" / "results" / "decontamination.json").read_text())["rows"]
    page = (root / "docs" / "grader.md").read_text()
    shares = {way: [f"{row['found']:,} of {row['planted']:,}" for row in rows if row["way"] == way] for way in PLANTED}
    lines = page[page.index("| change |") :].split("\n\n")[0].splitlines()[2:]
    assert [[cell.strip() for cell in line.split("|")[2:4]] for line in lines] == list(shares.values())
    assert not any(row["as itself"] for row in rows if "number" in row["way"])
