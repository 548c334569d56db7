"""One style for all figures, and how figures and tables become files. The only module that imports matplotlib's pyplot."""

import base64
import io
import logging
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # a new font cache is no news for a notebook

import matplotlib.pyplot as plt  # noqa: E402
import seaborn as sns  # noqa: E402

from ..runs.records import profile_folder  # noqa: E402
from ..support.files import write_atomically  # noqa: E402

PDF = "ASYMLIB_PDF"  # in the environment: figures as PDF too, which are not committed
WIDTH = 10.0  # inches of a figure: the site shows it at that size, GitHub at 9, where the text of 10 points has 9


def use_style() -> None:
    """Set the style of all figures: print sizes, glyphs drawn into SVG files, no machine- or time-dependent bytes."""
    sns.set_theme(style="ticks", context="paper", font_scale=1.15)
    plt.style.use(str(Path(__file__).with_name("figures.mplstyle")))


def name_figure(name: str, policy: str, policies) -> str:
    """The first policy's figure has the plain name."""
    return name if policy == policies[0] else f"{name}_{policy.split('/')[-1]}"


def save_figure(fig, profile: str, name: str, results: Path | str | None = None) -> None:
    """Write results/<profile>/figures/<name> as .png (200 dpi, a palette of 256 colours) and .svg, with $ASYMLIB_PDF as .pdf.

    Each file appears whole or not at all; a picture whose pixels did not change is not written again.
    """
    fig.draw_without_rendering()
    fig.set_layout_engine("none")  # it is laid out now; every format would do so again, which takes longer than drawing
    folder = profile_folder(profile, results) / "figures"
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    palette = Image.open(io.BytesIO(_drawn(fig, "png"))).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    if not (svg.exists() and _same_pixels(png, palette)):
        content = io.BytesIO()
        palette.save(content, format="png", optimize=True)
        vector = _light(_drawn(fig, "svg", metadata={"Date": None}, dpi=100))  # dpi: of the pixels inside
        write_if_changed(png, content.getvalue())
        write_if_changed(svg, vector)
    if os.environ.get(PDF):
        write_if_changed(folder / f"{name}.pdf", _drawn(fig, "pdf", metadata={"CreationDate": None}))


def _drawn(fig, kind: str, **options) -> bytes:
    content = io.BytesIO()
    fig.savefig(content, format=kind, **options)
    return content.getvalue()


def _light(svg: bytes) -> bytes:
    """The pictures inside a vector file, faint lines and bands, with 64 colours: a quarter of the bytes."""

    def reduced(match: re.Match) -> bytes:
        content, picture = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(match[1])))
        picture.quantize(64, Image.Quantize.FASTOCTREE).save(content, "png", optimize=True)
        return b"data:image/png;base64," + base64.b64encode(content.getvalue())

    return re.sub(rb"data:image/png;base64,([A-Za-z0-9+/=\s]+)", reduced, svg)


def _same_pixels(path: Path, picture: Image.Image) -> bool:
    try:
        with Image.open(path) as old:
            return old.size == picture.size and np.array_equal(old.convert("RGB"), picture.convert("RGB"))
    except (OSError, SyntaxError):  # none yet, or broken: it is written anew
        return False


def save_table(table: pd.DataFrame, profile: str, name: str, results: Path | str | None = None) -> None:
    """Write results/<profile>/tables/<name>.csv and .md; the index is left out."""
    folder = profile_folder(profile, results) / "tables"
    write_if_changed(folder / f"{name}.csv", table.to_csv(index=False).encode())
    write_if_changed(folder / f"{name}.md", table.to_markdown(index=False, missingval="").encode() + b"\n")


def write_if_changed(path: Path, content: bytes) -> None:
    """Write the file whole, and its folder, unless it is so already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)
