"""Every number that the README's two paragraphs of results state is computed anew from committed tables and records."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from asymlib.analysis.measures import measure_runs, seeds_by_variant
from asymlib.analysis.panels import difference
from asymlib.analysis.selection import load_comparable
from asymlib.analysis.statistics import mean_interval
from asymlib.lab.policy import Policy
from asymlib.runs.records import load_runs

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "results" / "lab" / "tables"


def paragraphs() -> str:
    text = " ".join((ROOT / "README.md").read_text().split())
    first = re.search(r"\*\*What holds in the lab\*\*.*?best pass@16 \(.*?\)\.", text)[0]
    return (
        first + re.search(r"On the \*number walk\*.*?twelve seeds\)", text)[0] + re.search(r"The rules stood.*?\(C4\)", text)[0]
    )


def lead(table: str) -> list[str]:
    """AsymGRPO - GRPO in accuracy and its interval, in points."""
    rows = pd.read_csv(TABLES / table)
    rows = rows[(rows.contrast == "accuracy: asymgrpo - grpo") & (rows.get("policy", "small") == "small")]
    return "{:.1f}|{:.1f} to {:.1f}".format(*(100 * rows[["effect", "low", "high"]].iloc[0])).split("|")


def _points(interval) -> tuple[str, str]:
    mean, low, high, _ = (100 * x for x in interval)
    return f"{mean:.1f}", f"{low:.1f} to {high:.1f}"


def fragments() -> list[str]:
    """The sentences' parts with a number, as the committed results give them."""
    table = pd.read_csv(TABLES / "table1_lab.csv").query("policy == 'small'").set_index("lab (number walk), Avg@k in %")
    more, half = map(float, table["pass@16 - GRPO's"]["AsymGRPO"].split(" ± "))
    averages = table.average.str.split(" ± ").str[0].astype(float)
    assert averages.idxmax() == "GRPO w/ Entro.Adv"
    assert table["pass@16"].str.split(" ± ").str[0].astype(float).idxmax() == "Pass@K Training"
    logs = seeds_by_variant(measure_runs(load_comparable("long", ROOT / "results")), "log entropy")
    above = np.exp((logs.asymgrpo - logs.grpo).mean()) - 1
    walk, countdown = (
        pd.read_csv(TABLES / f"{name}.csv").query("variant == 'neg_only'").set_index("claim")["boundary's share"]
        for name in ("boundary", "boundary_countdown")
    )
    size = {name: f"{sum(w.numel() for w in Policy(name).parameters()) / 1000:.0f}k" for name in ("small", "base")}
    elsewhere = pd.read_csv(TABLES / "countdown_levels.csv").set_index("method")
    assert elsewhere["Avg@k"].idxmax() == "GRPO w/ Entro.Adv" and elsewhere["pass@16"].idxmax() == "Pass@K Training"
    scale = measure_runs(load_comparable("scale", ROOT / "results"))
    base = {name: 100 * some.accuracy.mean() for name, some in scale.groupby("variant")}
    assert max(base, key=base.get) == "asymgrpo" and scale.seed.nunique() == 8
    assert load_runs(ROOT / "results" / "decisive" / "runs").seed.nunique() == 16
    short, of_short = lead("claims_contrasts.csv")
    there, of_there = lead("countdown_contrasts.csv")
    late, of_late = lead("long_runs_contrasts.csv")
    others = load_runs(ROOT / "results" / "rates" / "runs").query(
        "learning_rate == 1.5e-4"
    )  # the same setting on eight other seeds
    others = measure_runs(others)
    again, of_again = _points(mean_interval(difference(others, "accuracy", "asymgrpo", "grpo")))
    solved, of_solved = _points(mean_interval(difference(others, "pass@16", "asymgrpo", "grpo")))
    first = measure_runs(load_comparable("lab", ROOT / "results")).query("policy == 'small'")
    more_k = difference(first, "pass@16", "pass_at_k", "asymgrpo").mean()
    second, low, high = re.findall(r"[\d.]+", elsewhere["pass@16 minus GRPO's"]["AsymGRPO"])
    return [
        f"solves {more:.0f} points more problems in 16 tries than GRPO",
        f"(95% interval {more - half:.0f} to {more + half:.0f}, eight seeds; eight others: {solved}, {of_solved})",
        f"and {second} more on a second task, Countdown ({low} to {high})",
        f"it leads by {short} points over 500 steps ({of_short}; other seeds {again}, {of_again}; "
        f"Countdown {there}, {of_there})",
        f"by {late} over 2,000 ({of_late})",
        f"at an entropy {above:.0%} above GRPO's",
        f"({averages.max()}, AsymGRPO {averages['AsymGRPO']}; "
        f"Countdown {elsewhere['Avg@k'].max()}, {elsewhere['Avg@k']['AsymGRPO']}; "
        f"base policy {base['grpo_entropy_adv']:.1f}, {base['asymgrpo']:.1f})",
        f"the best pass@16 ({100 * more_k:.1f} above AsymGRPO's; "
        f"Countdown {elsewhere['pass@16'].max() - elsewhere['pass@16']['AsymGRPO']:.1f})",
        f"`small` ({size['small']} parameters: 500 steps, eight seeds; 2,000 steps, six other seeds, then sixteen",
        f"`base` ({size['base']}, 300 steps, five seeds, then eight others)",
        "`small` (1,000 steps, twelve seeds)",
        "37_boundary.ipynb",
        "the boundary 0^0",
        f"makes {walk['C7']:.0%} (Countdown: {countdown['C7']:.0%}) of what Neg-Only adds to the increment (C7)",
        f"and {walk['C4']:.0%} ({countdown['C4']:.0%}) of its fall in entropy (C4)",
    ]


def test_every_number_of_the_readme_s_results_is_that_of_the_committed_ones():
    text = paragraphs()
    for fragment in fragments():
        assert fragment in text, fragment
        text = text.replace(fragment, "")
    left = re.sub(r"\[37_boundary\]\(\S+\)", "", text)
    assert not re.search(r"\d", left), f"a number that no table was asked for: {left}"
