"""Golds: several boxes of one list, and lists that answer to names."""

import json
import re
from pathlib import Path

import pytest

from asymlib.evaluation.golds import IN_ORDER, base, gold, is_ordered
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
        (r"\text{Softball, Kickball}", "List the names of the choices from most popular to least popular.", True),
        ("b,a,c", "Order $a$, $b$ and $c$ from the smallest to the largest.", True),
        ("89,88", "List the scores from the greatest to the least.", False),  # numbers tell their order
        (r"\text{A,B}", "List your choices in alphabetical order.", False),
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


@pytest.mark.parametrize(
    ("answer", "problem", "truth"),
    [
        ("110111", "Find $1011_2 \\cdot 101_2$. Express your answer in base 2.", "110111_{2}"),
        ("1331", "What is the base five product of the numbers $121_{5}$ and $11_{5}$?", "1331_{5}"),
        ("5", "find $B+C$ in base $6$.", "5_{6}"),
        ("8A", "Express your answer in base $12$, using $A$ for $10$.", "8A_{12}"),
        ("52_8", "Express your answer in base $8$.", "52_8"),
        ("75", "Convert $135_7$ to a base 10 integer.", "75"),
        ("255", "What is the largest base-4 number with four digits? Express your answer in base ten.", "255"),
        ("2", "How many zeroes does $10!$ end with, when $10!$ is written in base 9?", "2"),
        ("858", "Express $3AB_{12}$ as a base 10 integer. Here $A$ and $B$ denote the digits 10 and 11 in base 12.", "858"),
        ("3", "$100_{10}$ in base $b$ has five digits. Find $100$ in base $b$.", "3"),
    ],
)
def test_the_base_that_a_problem_asks_for_belongs_to_its_gold(answer, problem, truth):
    assert gold(answer, problem, boxed=False) == truth


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (HUB / f"{name}.jsonl").read_text().splitlines()]


@real
def test_maths_golds_of_several_boxes():
    joined = {334, 504, 3460, 3694, 3997, 6780, 6816, 6843, 6922, 7225, 7321, 7414}
    golds = {
        i: (gold(row["solution"], row["problem"], True), (answer_boxes(row["solution"]) or [""])[-1])
        for i, row in enumerate(rows("train"))
    }
    based = {4738, 4744, 4812, 4851, 5101, 5201, 5506}
    assert {i for i, (ours, last) in golds.items() if ours != last} == joined | based | {2713, 6387}  # and two that are ordered
    written = {i: re.search(r"\d_\{?(\d+)", last) for i, (_, last) in golds.items()}
    asked = {i: base(row["problem"]) for i, row in enumerate(rows("train"))}
    assert {i for i, number in asked.items() if number and not written[i]} == based
    assert all(asked[i] in (None, match[1]) for i, match in written.items() if match)
    assert (golds[3997][0], golds[6922][0], golds[2713][0]) == ("1, 9", r"\{60^\circ, 45^\circ, 75^\circ\}", "12,9" + IN_ORDER)
    assert [i for i, (ours, _) in golds.items() if not ours] == [5341, 5343]


@real
@pytest.mark.parametrize(
    ("answer", "right"),
    [("Softball, Kickball, Picnic", 1), (r"\text{Softball, Kickball, Picnic}", 1), ("Picnic, Kickball, Softball", 0)],
)
def test_a_ranking_is_graded_in_its_order(answer, right):
    row = rows("train")[6387]
    assert compute_score("train", rf"\boxed{{{answer}}}", gold(row["solution"], row["problem"], True)) == right


@real
def test_olympiadbenchs_ordered_lists():
    source = DATASETS["olympiadbench"]
    found = {i for i, row in enumerate(rows("olympiadbench")) if is_ordered(", ".join(row[source.answer]), row[source.problem])}
    assert found == {87, 148, 168, 194, 199, 202, 210, 225, 243, 253, 255, 262, 275, 285, 287, 307, 381, 386, 428, 429}
