"""The pictures of the methods' pages: a method's curves, and its runs of the lab."""

import io

import numpy as np
import pandas as pd

from asymlib import METHODS, flipped_negative, flipped_positive
from asymlib.analysis.figures import plt
from asymlib.analysis.looks import look
from asymlib.analysis.panels import plot_curves
from asymlib.methods import Method

G = 8
OF_THE_GROUP_SIZE = ("pass_at_k", "leave_one_out", "sample_std", "extra_right", "best_of_subset", "best_of_group")


def svg(draw, size: tuple[float, float], columns: int = 1) -> bytes:
    fig, axes = plt.subplots(1, columns, figsize=size, layout="constrained")
    draw(axes)
    file = io.BytesIO()
    fig.savefig(file, format="svg", metadata={"Date": None})
    plt.close(fig)
    return file.getvalue()


def draw_thumbnail(ax, m: Method) -> None:
    """Both curves, GRPO's faint; those that depend on the group's size are those of a group of G."""
    for method, style in ((METHODS["grpo"], dict(color="0.75", linewidth=1)), (m, dict(color=look(m.name).color, linewidth=2))):
        size = G if method.curve in OF_THE_GROUP_SIZE else 64
        p, (pos, neg) = np.arange(size + 1) / size, method.table(size)
        if method.curve == "flipped_positive":
            pos = flipped_positive(p, G, method.beta_pos)
        if method.curve == "flipped_negative":
            neg = flipped_negative(p, G, method.beta_neg)
        ax.plot(p[1:], pos[1:], **style)
        ax.plot(p[:-1], neg[:-1], **style)
    ax.axhline(0, color="0.4", linewidth=0.6)
    ax.set(ylim=(-3.8, 3.8), xlim=(-0.02, 1.02))
    ax.axis("off")


def draw_curve(ax, m: Method) -> None:
    draw_thumbnail(ax, m)
    ax.axis("on")
    pos, neg = m.table(G)
    p = np.arange(G + 1) / G
    color = look(m.name).color
    ax.plot(p[1:], pos[1:], "o", color=color, label="right rollout")
    ax.plot(p[:-1], neg[:-1], "o", color=color, fillstyle="none", label="wrong rollout")
    ax.set(xlabel="group accuracy p", ylabel="advantage", ylim=(min(-4, neg.min() - 0.3), max(4, pos.max() + 0.3)))
    ax.legend(loc="upper center", ncols=2)


def draw_runs(axes, metrics: pd.DataFrame, m: Method) -> None:
    panels = {
        "entropy": ("entropy, nats per token", 1),
        "reward": ("training reward, %", 100),
        "val_acc": ("validation accuracy, %", 100),
    }
    for ax, (column, (title, scale)) in zip(axes, panels.items(), strict=True):
        plot_curves(ax, metrics, column, list(dict.fromkeys(["grpo", m.name])), scale=scale)
        ax.set(title=title, xlabel="step")
    axes[0].legend()
