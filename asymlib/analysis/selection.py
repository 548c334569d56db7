"""Which runs of a profile are compared with each other, and of which policies."""

import os
import warnings
from pathlib import Path

import pandas as pd

from ..runs.records import different_starts, load_runs, profile_folder
from ..runs.spec import POLICY_DEFAULTS
from ..support.messages import say

# What runs may differ in and still be compared.
APART = "variant method method_changes group_size beta_schedule run_id collapsed record policy seed warmup_seed".split()


class NothingToDraw(Exception):
    """A notebook's records cannot feed it: one sentence that says what is missing. A notebook shows only this sentence, and
    `asymlib build` leaves the notebook out without calling it failed."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback."""
        return [f"Nothing to draw: {self}"]


def load_what_there_is(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """`load_runs` of a folder that need not exist, and its warnings."""
    with warnings.catch_warnings(record=True) as skipped:
        warnings.simplefilter("always")
        runs = load_runs(folder) if folder.is_dir() else pd.DataFrame()
    return runs, [str(warning.message) for warning in skipped]


def load_comparable(profile: str, results: Path | str | None = None) -> pd.DataFrame:
    """The profile's finished runs that share, per policy, the most common settings; says in print what it left out.

    Settings are all but variant, seed and warm-up seed. Collapsed runs are counted and left out, not averaged in. Raises
    NothingToDraw, naming the command that makes the runs, if there is none.
    """
    folder = profile_folder(profile, results) / "runs"
    runs, skipped = load_what_there_is(folder)
    say(*skipped, sep="\n", end="\n" * bool(skipped))
    if runs.empty:
        make = "`asymlib batch` makes them from a matrix"
        raise NothingToDraw(f"profile {profile!r} has no finished run yet in {os.path.relpath(folder)}: {make}")
    for sentence in different_starts(runs.record):
        say(sentence)
    settings = runs.drop(columns=APART).astype(str).agg(" ".join, axis=1)
    usual = settings.groupby(runs.policy).transform(lambda s: s.mode().iloc[-1])
    left_out = {"with other settings": settings != usual, "collapsed": runs.collapsed & (settings == usual)}
    for reason, rows in left_out.items():
        if rows.any():
            names = sorted({f"{run.variant} (seed {run.seed})" for run in runs[rows].itertuples()})
            say(f"left out, {reason}: {rows.sum()} of {len(runs)} runs: {', '.join(names)}")
    return runs[(settings == usual) & ~runs.collapsed]


def policies_in(runs: pd.DataFrame) -> list[str]:
    """The policies with runs: those of `POLICY_DEFAULTS` in its order, then others by name."""
    return sorted(set(runs.policy), key=lambda p: (p not in POLICY_DEFAULTS, [*POLICY_DEFAULTS, p].index(p), p))


def policies_of(runs: pd.DataFrame, variants) -> list[str]:
    """The policies with runs of all the variants, or of some if none has all; says in print what is missing.

    Raises NothingToDraw if none of the variants has a run.
    """
    missing = {p: [v for v in variants if v not in set(runs.variant[runs.policy == p])] for p in policies_in(runs)}
    some = [policy for policy, absent in missing.items() if len(absent) < len(variants)]
    if not some:
        raise NothingToDraw(f"no finished run of {', '.join(variants)}")
    drawn = [policy for policy in some if not missing[policy]] or some
    for policy, absent in missing.items():
        if absent:
            say(f"{policy}: {'drawn, has' if policy in drawn else 'left out, has'} no runs of {', '.join(absent)}")
    return drawn


def of_policy(runs: pd.DataFrame, policy: str) -> pd.DataFrame:
    """The runs of one policy. Raises NothingToDraw if there is none."""
    found = runs[runs.policy == policy]
    if found.empty:
        raise NothingToDraw(f"no finished run of the policy {policy!r}")
    return found


def need(runs: pd.DataFrame, *variants: str) -> None:
    """Raise NothingToDraw, naming what is missing, unless each of the variants has a run."""
    missing = [variant for variant in variants if variant not in set(runs.variant)]
    if missing:
        raise NothingToDraw(f"no finished run of {', '.join(missing)}")
