"""The page "From formula to code": each equation of formulas.yaml beside the function that computes it."""

import ast
import importlib
import inspect
import textwrap
from pathlib import Path

import yaml

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def formula_map() -> str:
    """Each equation beside the code that computes it, with a link to the line and to the notebook that shows it."""
    notebooks, parts = {path.stem[:2]: path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}, []
    for entry in yaml.safe_load((DOCS / "formulas.yaml").read_text()):
        page, equation = notebooks[entry["notebook"]], str(entry["equation"])
        title = equation if "Table" in equation else f"Equation {equation}"
        shown = f"$$ {entry['formula']} $$\n\n" if entry["formula"] else ""
        links = "".join(f"{source_link(name)}<br>" for name in entry["code"])
        left = f":::{{container}}\n{shown}{links}[{page}](/notebooks/{page}.ipynb)\n:::\n"
        code = "\n\n".join(filter(None, map(body_of, entry["code"])))
        right = f":::{{container}}\n```python\n{code}\n```\n:::\n" if code else ""
        parts.append(f"## {title}\n\n::::{{container}} formula-code\n{left}\n{right}::::\n")
    return "\n".join(parts)


def found_at(name: str):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module or "asymlib"), attribute)


def body_of(name: str, most: int = 24) -> str:
    """A function without its docstring; '' for what is data or longer than `most` lines."""
    found = found_at(name)
    if not callable(found):
        return ""
    source = textwrap.dedent(inspect.getsource(found))
    doc = ast.parse(source).body[0].body[0]  # every public function has one
    lines = source.splitlines()
    kept = lines[: doc.lineno - 1] + lines[doc.end_lineno :]
    return "\n".join(kept) if len(kept) <= most else ""


def source_link(name: str) -> str:
    """The function's name, and its file and line as a link to the highlighted source. AttributeError if there is none."""
    attribute, found = name.rpartition(".")[2], found_at(name)
    if callable(found):
        home, line, anchor = found.__module__, inspect.getsourcelines(found)[1], f"#{attribute}"
    else:  # the one name that is data
        above = (ROOT / "asymlib" / "methods.py").read_text().split(f"\n{attribute} = ")[0]
        home, line, anchor = "asymlib.methods", above.count("\n") + 2, ""
    path = home.replace(".", "/")
    return f'`{attribute}` <a class="source" href="_modules/{path}.html{anchor}">{path}.py:{line}</a>'
