"""Golds: several boxes of one list, and lists that answer to names."""

import json
from pathlib import Path

import pytest

from asymlib.evaluation.golds import IN_ORDER, gold, is_ordered
from asymlib.evaluation.reward import answer_boxes, compute_score
from asymlib.evaluation.sets import DATASETS

HUB = Path(__file__).resolve().parents[3] / "shared" / "hub"  # the sets are not ours to distribute
real = pytest.mark.skipif(not HUB.is_dir(), reason="the real sets are not here")


SYSTEM = r"{} $$ \begin{{aligned}} & \log _{{10}}\left(x^{{3}}\right)+y=11 \\\\ & x-y=3 \end{{aligned}} $$"


@pytest.mark.parametrize(
    ("answer", "problem", "ordered"),
    [
        ("2,4,3", "Determine the values of $T(10), T(11)$ and $T(12)$.", True),
        ("16,3,1,1", "Determine the values of $w, d, a$ and $b$ if points are given.", True),
        ("2,-1,-18", "What are the values of $a, h$ and $k$ ?", True),
        ("1,3", "Find the maximum and minimum possible number of elements.", True),
        ("12,9", "Give $AB$ and $BC$ respectively.", True),
        (r"$6764$,$10945$", "determine $e(18)$ and $e(19)$.", True),
        ("7,4", "A goat cost 19 and a toy cost 17. How many of each did she buy?", True),
        ("10^{3},10", SYSTEM.format("Solve the system of equations:"), True),
        ("10^{3},10,7", SYSTEM.format("Solve the system of equations:"), False),  # it has two unknowns
        ("5,-2", SYSTEM.format("Suppose that $x$ and $y$ satisfy a system. Find all values of $x-y$."), False),
        ("7,14,18", "Qing is older than Rayna, Paolo than Qing. Determine their ages.", False),  # in no order of the names
        ("2,-1", "What are the values of $a, h$ and $k$ ?", False),  # not as many as the names
        ("1,2", "Sides $a$ and $b$ have 1 and 2 respectively. Find all possible values of $c$.", False),
        ("1,2", "List the solutions in increasing order.", False),  # how to write a set
        ("(1,2),(3,4)", "Determine $x$ and $y$.", False),  # two solutions
        ("x=1,y=2", "Determine $x$ and $y$.", False),  # named already
        ("(1,2)", "Determine $x$ and $y$.", False),  # a tuple already
        ("5", "Determine $x$ and $y$.", False),
    ],
)
def test_which_lists_are_ordered(answer, problem, ordered):
    assert is_ordered(answer, problem) == ordered


@pytest.mark.parametrize(
    ("response", "right"),
    [
        (r"\boxed{16,3,1,1}", 1),
        (r"\boxed{(16, 3, 1, 1)}", 1),
        (r"\boxed{16, 3, 1 \text{ and } 1 \text{ respectively}}", 1),
        (r"\boxed{w=16, d=3, a=1, b=1}", 1),
        (r"\boxed{16}, \boxed{3}, \boxed{1} and \boxed{1}", 1),
        (r"\boxed{1,1,3,16}", 0),
        (r"\boxed{1} and \boxed{1}, \boxed{3}, \boxed{16}", 0),
        (r"\boxed{\{16,3,1,1\}}", 0),
        (r"\boxed{16,3,1}", 0),
    ],
)
def test_an_ordered_gold_is_graded_in_order(response, right):
    truth = gold(["16,3,1,1"], "Determine the values of $w, d, a$ and $b$.", boxed=False)
    assert truth == r"16,3,1,1 \text{, respectively}"
    assert compute_score("olympiadbench", response, truth) == right


@pytest.mark.parametrize(
    ("cell", "problem", "boxed", "answer"),
    [
        (r"\boxed{1} or \boxed{9}", "Enter all possible values, separated by commas.", True, "1, 9"),
        (r"\boxed{1} and again \boxed{1}", "Find all such numbers.", True, "1"),
        (r"\boxed{1} or \boxed{9}", "Enter only one of them.", True, "9"),
        (r"\boxed{}", "Find all such numbers.", True, ""),
        ("no box", "Find $x$.", True, ""),
        (27.0, "Find $x$.", False, "27"),
        (["$2,-2$"], "Find $x$.", False, "$2,-2$"),
        (None, "Find $x$.", False, None),
    ],
)
def test_what_a_cell_holds(cell, problem, boxed, answer):
    assert gold(cell, problem, boxed) == answer


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (HUB / f"{name}.jsonl").read_text().splitlines()]


@real
def test_maths_golds_of_several_boxes():
    joined = {334, 504, 3460, 3694, 3997, 6780, 6816, 6843, 6922, 7225, 7321, 7414}
    golds = {
        i: (gold(row["solution"], row["problem"], True), (answer_boxes(row["solution"]) or [""])[-1])
        for i, row in enumerate(rows("train"))
    }
    assert {i for i, (ours, last) in golds.items() if ours != last} == joined | {2713}  # and one that is ordered
    assert (golds[3997][0], golds[6922][0], golds[2713][0]) == ("1, 9", r"\{60^\circ, 45^\circ, 75^\circ\}", "12,9" + IN_ORDER)
    assert [i for i, (ours, _) in golds.items() if not ours] == [5341, 5343]


@real
def test_olympiadbenchs_ordered_lists():
    source = DATASETS["olympiadbench"]
    found = {i for i, row in enumerate(rows("olympiadbench")) if is_ordered(", ".join(row[source.answer]), row[source.problem])}
    assert found == {87, 148, 168, 194, 199, 202, 210, 225, 243, 253, 255, 262, 275, 285, 287, 307, 381, 386, 428, 429}
