"""Under nbval the notebooks draw into a copy of results/, which is then compared with what is committed: nothing is healed."""

import os
import shutil
import tempfile
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).resolve().parents[1] / "results"
COPY = "ASYMLIB_RESULTS"  # what the kernels take as the results folder
NEAR = 0.35  # mean difference of two pictures, of 255: processors round the edges of lines differently


def pytest_configure(config):
    """Once a session, before its workers start: they and their kernels inherit the variable."""
    if config.option.nbval and not hasattr(config, "workerinput"):
        os.environ[COPY] = shutil.copytree(RESULTS, Path(tempfile.mkdtemp(prefix="asymlib-")) / "results").as_posix()


def pytest_sessionfinish(session):
    if session.config.option.nbval and not hasattr(session.config, "workerinput"):
        copy = Path(os.environ.pop(COPY))
        faults = [fault for path in drawn(RESULTS) if (fault := difference(path, copy / path.relative_to(RESULTS)))]
        shutil.rmtree(copy.parent)
        if faults:
            print("\n\nthe notebooks draw other figures or tables than the committed ones:\n  " + "\n  ".join(faults))
            session.exitstatus = 1


def drawn(results: Path) -> list[Path]:
    return [path for kind in ("figures", "tables") for path in sorted(results.glob(f"*/{kind}/*")) if path.suffix != ".pdf"]


def difference(committed: Path, again: Path) -> str | None:
    """How the committed file differs from the one that was drawn just now, or None."""
    name = committed.relative_to(committed.parents[2])
    try:
        if committed.suffix == ".png":
            old, new = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (committed, again))
            return None if old.shape == new.shape and np.abs(old - new).mean() <= NEAR else f"{name}: another picture"
        if committed.suffix == ".svg":
            return None if xml.etree.ElementTree.parse(committed) else f"{name}: empty"
        return None if committed.read_bytes() == again.read_bytes() else f"{name}: other text"
    except (OSError, SyntaxError) as error:
        return f"{name}: {error}"
