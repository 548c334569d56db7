"""The comparison that follows the notebooks' run: it tells a damaged figure or table from a whole one."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

PATH = Path(__file__).resolve().parents[1] / "notebooks" / "conftest.py"
spec = importlib.util.spec_from_file_location("notebooks_conftest", PATH)
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)


@pytest.fixture
def pair(tmp_path):
    """pair(name, committed, again): the two files' difference; a colour makes a picture."""

    def write(path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, tuple):
            Image.new("RGB", (40, 30), content).save(path)
        elif content is not None:
            path.write_bytes(content)
        return path

    return lambda name, a, b: conftest.difference(
        write(tmp_path / "a" / "lab" / "figures" / name, a), write(tmp_path / "b" / "lab" / "figures" / name, b)
    )


@pytest.mark.parametrize(
    ("name", "committed", "again", "said"),
    [
        ("x.png", (200, 0, 0), (200, 1, 0), None),
        ("x.png", (200, 0, 0), (0, 200, 0), "lab/figures/x.png: another picture"),
        ("x.png", b"\x89PNG torn", (200, 0, 0), "lab/figures/x.png: cannot identify"),
        ("x.png", (200, 0, 0), None, "lab/figures/x.png: [Errno 2]"),
        ("x.svg", b"<svg></svg>", b"", None),
        ("x.svg", b"<svg>", b"", "lab/figures/x.svg: no element found"),
        ("x.csv", b"a\n1\n", b"a\n1\n", None),
        ("x.csv", b"a\n1\n", b"a\n2\n", "lab/figures/x.csv: other text"),
    ],
)
def test_a_difference_is_named(pair, name, committed, again, said):
    found = pair(name, committed, again)
    assert found is None if said is None else found.startswith(said)
