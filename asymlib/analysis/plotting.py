"""One style for all figures and the panels that several notebooks share. The only module that imports matplotlib.

A *variant* is `ExperimentSpec.variant`: 'grpo', 'reinforce beta_neg=0.75'. It has the same colour, line style and marker in
every figure; line style and marker alone tell the curves of one figure apart, so a grey print can be read.
"""

from __future__ import annotations

import io
import logging
import re
import string
import warnings
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a new font cache is no news for a notebook

import matplotlib.pyplot as plt  # noqa: E402
import seaborn as sns  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap, to_hex  # noqa: E402

from ..methods import CATALOGUE, RELATED  # noqa: E402
from ..runs.records import load_runs, results_root  # noqa: E402
from ..runs.spec import POLICY_DEFAULTS  # noqa: E402
from ..support.files import write_atomically  # noqa: E402
from .statistics import CONFIDENCE, ema, mean_interval  # noqa: E402


class Look(NamedTuple):
    color: str
    linestyle: str | tuple
    marker: str


# Okabe and Ito's colour-blind safe hues: blue for GRPO's family, vermilion for AsymGRPO's, broken lines for Clip-higher.
LOOKS = {
    "reinforce": Look("#000000", "-", "o"),
    "grpo": Look("#0072B2", "-", "s"),
    "grpo_entropy_reg": Look("#56B4E9", ":", "P"),
    "grpo_clip_higher": Look("#56B4E9", "--", "D"),
    "grpo_entropy_adv": Look("#0072B2", "-.", "X"),
    "dr_grpo": Look("#8C6D31", "--", "h"),
    "pass_at_k": Look("#999999", "-.", "p"),
    "pos_only": Look("#009E73", "--", "^"),
    "neg_only": Look("#E69F00", "-.", "v"),
    "ent_increase": Look("#CC79A7", "--", ">"),
    "ent_decrease": Look("#882255", "-.", "<"),
    "asymgrpo_symmetric": Look("#7B3FA0", ":", "d"),
    "asymgrpo": Look("#D55E00", "-", "*"),
    "asymgrpo_clip_higher": Look("#EE9A5B", (0, (4, 1, 1, 1, 1, 1)), "X"),
    "reinforce entropy_coeff": Look("#777777", ":", "s"),
}
# The relatives: their hues around the circle, line styles and markers in turn, no pair of them twice or above.
LOOKS |= {
    name: Look(to_hex(color), ("-", "--", ":", "-.")[i % 4], "x+12348H|_"[i % 10])
    for i, (name, color) in enumerate(zip(RELATED, sns.husl_palette(len(RELATED), l=0.55), strict=True))
}
POLICY_LABELS = {"small": "lab, small policy (153k parameters)", "base": "lab, base policy (607k parameters)"}
_WORDS = {  # what a label says for a change
    "beta_": "β_",
    "entropy_coeff": "entropy coefficient",
    "group_size": "G",
    "mask_none_solved = True": "none-solved masked",
    "mask_all_solved = True": "all-solved masked",
}
SWEEPS = {  # REINFORCE with one beta raised, by that beta
    "beta_pos": {0.0: "reinforce", 0.5: "pos_only"} | {b: f"reinforce beta_pos={b}" for b in (0.25, 0.75, 1.0)},
    "beta_neg": {0.0: "reinforce", 0.5: "neg_only"} | {b: f"reinforce beta_neg={b}" for b in (0.25, 0.75, 1.0)},
}
SWEEP_ENDS = {"beta_pos": "#0B4F8A", "beta_neg": "#8B1A1A"}  # beta = 1; colours run from beta = 0 over 0.5's to these
SWEEP_LINES = {0.25: (":", "s"), 0.75: ((0, (5, 1, 1, 1, 1, 1)), "D"), 1.0: ((0, (8, 2)), "p")}


def use_style() -> None:
    """Set the style of all figures: print sizes, glyphs drawn into SVG files, no machine- or time-dependent bytes."""
    sns.set_theme(style="ticks", context="paper", font_scale=1.15)
    plt.rcParams.update(
        {
            "svg.fonttype": "path",  # glyphs as outlines: the same picture where the font is missing
            "svg.hashsalt": "asymlib",
            "pdf.fonttype": 42,  # TrueType, embedded: what journals ask for
            "figure.dpi": 100,
            "savefig.dpi": 200,
            "axes.grid": True,
            "grid.color": "0.9",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "legend.frameon": False,
            "lines.markersize": 4.5,
        }
    )


def look(variant: str) -> Look:
    """The variant's colour, line style and marker; an unlisted change of a method is its dotted line."""
    method, *changes = variant.split()
    setting, _, value = changes[0].partition("=") if changes else ("", "", "")
    if method == "reinforce" and setting in SWEEPS and len(changes) == 1:
        return _sweep_look(setting, float(value))
    return LOOKS.get(f"{method} {setting}".strip()) or LOOKS[method]._replace(linestyle=":")


def _sweep_look(parameter: str, beta: float) -> Look:
    """Between the colours of beta = 0, 0.5 and 1, so that a sweep starts at REINFORCE's and passes Pos-Only's or Neg-Only's."""
    stops = [LOOKS[SWEEPS[parameter][b]].color for b in (0.0, 0.5)] + [SWEEP_ENDS[parameter]]
    ramp = LinearSegmentedColormap.from_list(parameter, stops)
    return Look(to_hex(ramp(min(beta, 1.0))), *SWEEP_LINES.get(beta, (":", ".")))


def label(variant: str) -> str:
    """What a legend or table calls the variant: 'REINFORCE, β_neg = 0.75'."""
    method, *changes = variant.split()
    text = ", ".join([CATALOGUE[method].label, *(change.replace("=", " = ") for change in changes)])
    for code, words in _WORDS.items():
        text = text.replace(code, words)
    return text


def policy_label(policy: str) -> str:
    return POLICY_LABELS.get(policy, policy)


def load_comparable(profile: str, results: Path | str | None = None) -> pd.DataFrame:
    """The profile's finished runs that share, per policy, the most common settings; says in print what it left out.

    Settings are all but variant, seed and warm-up seed. Collapsed runs are counted and left out, not averaged in. Raises
    FileNotFoundError, naming the command that makes the runs, if there is none.
    """
    with warnings.catch_warnings(record=True) as skipped:
        warnings.simplefilter("always")
        runs = load_runs(Path(results or results_root()) / profile / "runs")
    for warning in skipped:
        print(warning.message)
    if runs.empty:
        raise FileNotFoundError(f"profile {profile!r} has no finished run yet: `asymlib batch` makes them from a matrix")
    of_variant = ["variant", "method", "method_changes", "group_size"]
    settings = (
        runs.drop(columns=[*of_variant, "run_id", "collapsed", "record", "policy", "seed", "warmup_seed"])
        .astype(str)
        .agg(" ".join, axis=1)
    )
    usual = settings.groupby(runs.policy).transform(lambda s: s.mode().iloc[-1])
    left_out = {"with other settings": settings != usual, "collapsed": runs.collapsed & (settings == usual)}
    for reason, rows in left_out.items():
        if rows.any():
            names = sorted({f"{run.variant} (seed {run.seed})" for run in runs[rows].itertuples()})
            print(f"left out, {reason}: {rows.sum()} of {len(runs)} runs: {', '.join(names)}")
    return runs[(settings == usual) & ~runs.collapsed]


def policies_in(runs: pd.DataFrame) -> list[str]:
    """The policies with runs: those of `POLICY_DEFAULTS` in its order, then others by name."""
    return sorted(set(runs.policy), key=lambda p: (p not in POLICY_DEFAULTS, [*POLICY_DEFAULTS, p].index(p), p))


def policies_of(runs: pd.DataFrame, variants) -> list[str]:
    """The policies with runs of all the variants, or of some if none has all; says in print what is missing.

    Raises FileNotFoundError if none of the variants has a run.
    """
    missing = {p: [v for v in variants if v not in set(runs.variant[runs.policy == p])] for p in policies_in(runs)}
    some = [policy for policy, absent in missing.items() if len(absent) < len(variants)]
    if not some:
        raise FileNotFoundError(f"no finished run of {', '.join(variants)}: `asymlib batch` makes them from a matrix")
    drawn = [policy for policy in some if not missing[policy]] or some
    for policy, absent in missing.items():
        if absent:
            print(f"{policy}: {'drawn, has' if policy in drawn else 'left out, has'} no runs of {', '.join(absent)}")
    return drawn


def seed_curves(metrics: pd.DataFrame, column: str, window: int | None = None) -> pd.DataFrame:
    """One variant's column as steps x seeds: smoothed by EMA 0.7 or, with `window`, averaged over windows of steps."""
    wide = metrics.dropna(subset=column).pivot(index="step", columns="seed", values=column)
    if window:
        return wide.groupby((wide.index - 1) // window * window + (window + 1) / 2).mean()
    return wide.apply(ema)


def plot_curves(ax, metrics: pd.DataFrame, column: str, variants, *, scale=1.0, window=None, **style) -> None:
    """Per variant the mean over seeds, from three seeds up its 95% Student-t band, every seed faint behind; x: step.

    metrics: `records.gather(runs, "metrics")` of one policy. variants: names; those without rows are not drawn. scale: 100
    turns a share into percent. style: Line2D settings that replace the look's.
    """
    for i, variant in enumerate(variants):
        rows = metrics[metrics.variant == variant]
        if rows.empty or column not in rows or rows[column].isna().all():
            continue
        wide = scale * seed_curves(rows, column, window)
        color, line, marker = look(variant)
        count, mean = wide.notna().sum(axis=1), wide.mean(axis=1)
        every = 1 if window else (len(mean) * i // (6 * len(variants)), max(len(mean) // 6, 1))  # no two curves' markers meet
        shown = dict(color=color, linestyle=line, marker=marker, markevery=every, linewidth=1.5, label=math(label(variant)))
        shown |= dict(markersize=7) if marker == "*" else {}  # a star's body is small
        ax.plot(mean.index, mean, **shown | style)
        if wide.shape[1] > 1:
            ax.plot(wide.index, wide, color=color, alpha=0.22, linewidth=0.5, zorder=1)
        if wide.shape[1] > 2:  # of two seeds the interval, 13 standard errors, would only hide the curves
            half = wide.sem(axis=1) * stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(count - 1, 1))
            ax.fill_between(mean.index, mean - half, mean + half, color=color, alpha=0.1, linewidth=0)


def math(text: str) -> str:
    """'β_neg' as a subscripted symbol; the rest of the text as it is."""
    return re.sub(r"β_(pos|neg)", r"$\\beta_\\mathrm{\1}$", text)


def finish_panels(fig, axes, columns: int = 5) -> None:
    """Letter the panels (a), (b), ..., share axis labels along rows and columns, and put one legend under the figure."""
    axes = np.atleast_2d(axes)
    handles = {}
    for letter, ax in zip(string.ascii_lowercase, (ax for ax in axes.flat if ax.get_visible()), strict=False):
        ax.set_title(f"({letter}) {ax.get_title()}", loc="left", fontsize=ax.title.get_fontsize())
        ax.set_title("")
        handles |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)} | handles
        if not ax.get_subplotspec().is_last_row():
            ax.set_xlabel("")
    for row in axes:
        for left, right in reversed(list(pairwise(row))):
            if left.get_ylabel() == right.get_ylabel():
                right.set_ylabel("")
    if handles:
        fig.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def summarize(metrics: pd.DataFrame, variants, quantities: dict[str, tuple[str, float]], against: str | None = None):
    """A table by policy and variant: each quantity's mean over the run, and ± half of its 95% interval over seeds.

    quantities: column -> (heading, scale). against: a variant, to give differences to it on the seeds that both have.
    Rounded to 3 decimals; with one seed ± is empty.
    """
    rows = []
    for policy in policies_in(metrics):
        means = metrics[metrics.policy == policy].groupby(["variant", "seed"])[list(quantities)].mean()
        names = set(means.index.get_level_values("variant"))
        for variant in [v for v in variants if v in names and v != against and (against is None or against in names)]:
            of_seed = (means.loc[variant] - (means.loc[against] if against else 0)).dropna(how="all")
            row = {"policy": policy, "method": label(variant), "seeds": len(of_seed)}
            for column, (heading, scale) in quantities.items():
                if len(values := of_seed[column].dropna()):
                    interval = mean_interval(scale * values.to_numpy())
                    row |= {heading: interval.mean, f"± {heading}": (interval.high - interval.low) / 2}
            rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["policy", "method", "seeds"]).round(3)


def save_figure(fig, profile: str, name: str, results: Path | str | None = None) -> None:
    """Write results/<profile>/figures/<name> as .png (200 dpi), .svg and .pdf, each whole or not at all, reproducibly."""
    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # it is laid out now; every format would do so again, which takes longer than drawing
    for suffix, metadata in {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.items():
        content = io.BytesIO()
        fig.savefig(content, format=suffix, metadata=metadata)
        _write(content.getvalue(), profile, "figures", f"{name}.{suffix}", results)


def save_table(table: pd.DataFrame, profile: str, name: str, results: Path | str | None = None) -> None:
    """Write results/<profile>/tables/<name>.csv and .md; the index is left out."""
    _write(table.to_csv(index=False).encode(), profile, "tables", f"{name}.csv", results)
    text = table.to_markdown(index=False, missingval="")
    _write(text.encode() + b"\n", profile, "tables", f"{name}.md", results)


def _write(content: bytes, profile: str, kind: str, name: str, results: Path | str | None) -> None:
    folder = Path(results or results_root()) / profile / kind
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / name, content)
