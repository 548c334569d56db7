"""Writes the pages and pictures that follow from data, into folders below docs/ that are not committed."""

import base64
import html
import inspect
import io
import re
import tomllib
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
import yaml
from equations import formula_map
from pictures import G, draw_curve, draw_runs, draw_thumbnail, svg
from PIL import Image, ImageOps

import asymlib
from asymlib import METHODS, RELATED, make_spec
from asymlib.analysis.figures import use_style
from asymlib.analysis.looks import label
from asymlib.analysis.reading import for_reading
from asymlib.analysis.selection import load_comparable
from asymlib.methods import CATALOGUE, CHANGEABLE, CURVES, Method
from asymlib.paper import table1
from asymlib.runs.records import gather
from asymlib.verl import settings as verl

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LAB = ROOT / "results" / "lab"
# Public addresses stand in pyproject.toml alone; what needs them is left out while they are empty.
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REPOSITORY, SITE = (PROJECT["tool"]["asymlib"][name].rstrip("/") for name in ("repository", "site"))
WORDS = yaml.safe_load((DOCS / "methods.yaml").read_text())
written: set[Path] = set()


def write_all() -> None:
    """Write every generated page; Sphinx's configuration calls this before sources are read."""
    use_style()
    paper = table1().reset_index().rename(columns={"label": "method", "method": "name"})
    for path in (LAB / "tables").glob("*.csv"):
        write(f"_generated/{path.stem}.md", table(pd.read_csv(path)))
    write("_generated/table1_paper.md", table(paper.drop(columns=["name", "group"])))
    write("_generated/metrics.md", metrics_table())
    write("_generated/formulas.md", formula_map())
    write("_generated/static/social.png", social_card())
    write("_generated/public.md", public_names())
    write("_generated/start.md", start_cards())
    write("_generated/guide.md", guide_cards())
    notebook_pages()
    method_pages(paper)
    module_pages()
    for folder in ("_generated", "methods", "notebooks", "api"):
        for path in set((DOCS / folder).rglob("*.*")) - written:
            path.unlink()


def write(name: str, content: str | bytes) -> None:
    """Write docs/<name> unless it is so already: Sphinx reads again what is newer."""
    path, content = DOCS / name, content.encode() if isinstance(content, str) else content
    written.add(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def rows_of(header: list, rows: list[list]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "&#124;") for cell in line) + " |" for line in lines) + "\n"


def in_words(contrast: str) -> str:
    """'late change: ent_increase' as 'late change: EntIncrease'."""
    measure, _, compared = contrast.replace("cov-slope", "slope of Cov(p)").partition(": ")
    names = [label(part) if part.split()[0] in METHODS else part for part in compared.split(" - ")]
    return f"{measure}: {' - '.join(names)}"


def table(frame: pd.DataFrame) -> str:
    """A sortable table, as `for_reading` prints it: verdicts are badges, method labels links to the method's page."""
    frame = for_reading(frame)
    if "contrast" in frame:
        frame["contrast"] = frame.contrast.map(in_words)
    if "variant" in frame:
        frame = frame.assign(variant=frame.variant.map(label)).rename(columns={"variant": "method"})
    frame = frame.rename(columns={name: "method" for name in frame if name.startswith("lab (")})
    if "policy" in frame and frame.policy.nunique() == 1:
        frame.pop("policy")
    shown = {m.label: f"[{m.label}](/methods/{m.name}.md)" for m in CATALOGUE.values()}
    shown |= {
        v: f'<span class="verdict {v.replace(" ", "-")}">{v}</span>' for v in ("holds", "does not hold", "alike", "undecided")
    }
    rows = [[shown.get(cell, cell) for cell in row] for row in frame.to_numpy().tolist()]
    return f":::{{table}}\n:class: sortable\n\n{rows_of(list(frame), rows)}:::\n"


def cards(entries: list[tuple[str, str, str, str]]) -> str:
    """(page, picture below _static or '', title, text) as a grid of links from a page at the top."""
    links = ""
    for page, image, title, text in entries:
        picture = f'<img src="_static/{image}" alt="" loading="lazy">' if image else ""
        links += f'<a href="{page}.html">{picture}<b>{title}</b><span>{text}</span></a>\n'
    return f'<div class="tiles">\n{links}</div>\n'


def toctree(names) -> str:
    return "\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def start_cards() -> str:
    runs = len(list((LAB / "runs").glob("*/done.json")))
    return cards(
        [
            ("results", "", "Results", f"Every figure and Table 1, from {runs} committed runs of the lab."),
            ("claims", "", "Claims", verdict_counts()),
            ("methods", "", "Methods", f"The {len(METHODS)} rows of Table 1: formula, curve, settings, results."),
            ("runs", "", "Runs", "Pick methods, seeds and a metric; read values off the curves."),
            ("notebooks", "", "Notebooks", "Every figure as code, in reading order."),
            ("guide", "", "Run it", "Two commands on a laptop; the paper's setting on 4 x H100; a method of your own."),
        ]
    )


def verdict_counts() -> str:
    """'Of the paper's 12 claims: 5 hold, ... (small); ...', a part for each column of verdicts."""
    claims = pd.read_csv(LAB / "tables" / "claims.csv")
    plural = {"holds": "hold", "does not hold": "do not hold", "undecided": "are undecided", "no runs": "have no runs"}
    parts = []
    for column in claims.columns.drop(["claim", "text"]):
        counts = claims[column].value_counts()
        words = ", ".join(f"{counts[v]} {v if counts[v] == 1 else many}" for v, many in plural.items() if v in counts)
        parts.append(f"{words} ({column})")
    return f"Of the paper's {len(claims)} claims, " + "; ".join(parts) + "."


def guide_cards() -> str:
    return cards(
        [
            ("h100", "", "4 x H100", "From the laptop to the paper's setting: every command, and what it may take."),
            ("formulas", "", "From formula to code", "Every equation, its function and the line."),
            ("add-a-method", "", "Add a method", "A new row of Table 1 in five minutes."),
        ]
    )


def metrics_table() -> str:
    return rows_of(["key", "meaning"], [[f"`{key}`", meaning] for key, meaning in WORDS["metrics"].items()])


def public_names() -> str:
    """What `from asymlib import ...` offers: each name with its first sentence."""
    data = {"METHODS": ["[METHODS](/methods.md)", "Every method of Table 1 by name."]}
    data["RELATED"] = ["[RELATED](/relatives.md)", "Published relatives by name, of the same type."]
    rows = list(data.values())
    for name in asymlib.__all__:
        if name not in data:
            found = getattr(asymlib, name)
            kind = "class" if inspect.isclass(found) else "func"
            first = inspect.getdoc(found).split("\n\n")[0].replace("\n", " ")
            rows.append([f"{{py:{kind}}}`{name} <{found.__module__}.{name}>`", first])
    return rows_of(["name", "what it is"], rows)


def module_pages() -> None:
    """One page a module, from its docstrings; without what only verl's processes load, which needs verl to be imported."""
    names = []
    for path in sorted((ROOT / "asymlib").rglob("[a-z]*.py")):
        if not re.search(r"^(from|import) (verl|ray|transfer_queue|trl)\b", path.read_text(), re.M):
            names.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
            write(f"api/{names[-1]}.md", f"# {names[-1]}\n\n```{{eval-rst}}\n.. automodule:: {names[-1]}\n```\n")
    write("_generated/modules.md", "```{toctree}\n:maxdepth: 1\n\n" + "\n".join(f"api/{name}" for name in names) + "\n```\n")


def notebook_pages() -> None:
    """Copies of the committed notebooks, with alternative texts for their pictures, and a card for each."""
    entries = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook, thumbnail = nbformat.read(path, as_version=4), ""
        title, _, text = notebook.cells[0].source.removeprefix("# ").partition("\n")
        heading = title
        notebook.cells[0].source += f"\n\n{ways_to(path)}"
        for cell in notebook.cells:
            if cell.cell_type == "markdown" and cell.source.startswith("#"):
                heading = cell.source.partition("\n")[0].lstrip("# ")
            for output in cell.get("outputs", []):
                if png := output.get("data", {}).get("image/png"):
                    cell.metadata["mystnb"] = {"image": {"alt": f"{heading}: the figure that the code above draws"}}
                    if not thumbnail:
                        thumbnail = f"{path.stem}.png"
                        write(f"_generated/static/{thumbnail}", reduced(base64.b64decode(png)))
        write(f"notebooks/{path.name}", nbformat.writes(notebook))
        sentence = re.split(r"(?<=[.:]) (?=[A-Z*])", " ".join(text.strip().split("\n\n")[0].split()))[0].rstrip(":")
        first = html.escape(re.sub(r"[$*`\\]", "", sentence))
        entries.append((f"notebooks/{path.stem}", thumbnail, title, first))
    write("_generated/notebooks.md", cards(entries) + toctree(page for page, *_ in entries))


def ways_to(path: Path) -> str:
    """Links to a notebook's file and, where the repository has an address, to the services that run it."""
    write(f"_generated/static/{path.name}", path.read_bytes())
    ways = {"Download": f"../_static/{path.name}"}
    if name := REPOSITORY.removeprefix("https://github.com/"):
        ways |= {
            "Source": f"{REPOSITORY}/blob/main/notebooks/{path.name}",
            "Open in Colab": f"https://colab.research.google.com/github/{name}/blob/main/notebooks/{path.name}",
            "Open in Binder": f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/notebooks/{path.name}",
        }
    links = " ".join(f'<a href="{address}">{way}</a>' for way, address in ways.items())
    if REPOSITORY:  # Colab opens the notebook alone, without the package and the records
        clone = f"!git clone --depth 1 {REPOSITORY} asymlib &amp;&amp; pip install -q './asymlib[lab]'"
        links += f"<br>In Colab run first: <code>{clone}</code>, then <code>%cd asymlib/notebooks</code>"
    return f'<p class="reach">{links}</p>'


def reduced(png: bytes, width: int = 720) -> bytes:
    """The picture at most `width` pixels wide and in 128 colours: a tenth of the bytes."""
    image, content = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    image.thumbnail((width, 4 * width))
    image.quantize(128).save(content, "png", optimize=True)
    return content.getvalue()


def social_card() -> bytes:
    """What a link to the site shows elsewhere: the picture of the README on 1200 x 630 pixels."""
    card, file = Image.new("RGB", (1200, 630), "white"), io.BytesIO()
    picture = ImageOps.contain(Image.open(LAB / "figures" / "one_look.png").convert("RGB"), (1160, 590))
    card.paste(picture, ((1200 - picture.width) // 2, (630 - picture.height) // 2))
    card.quantize(128).save(file, "png", optimize=True)
    return file.getvalue()


def method_pages(paper: pd.DataFrame) -> None:
    """One page a method or relative, from method.md.jinja."""
    metrics = gather(
        load_comparable("lab", ROOT / "results").query("policy == 'small' and variant in @CATALOGUE.keys()"), "metrics"
    )
    lab = pd.read_csv(LAB / "tables" / "table1_lab.csv")
    template = jinja2.Template((DOCS / "method.md.jinja").read_text(), undefined=jinja2.StrictUndefined)
    ideas = WORDS["ideas"] | WORDS["relatives"]
    entries, sources = [], (*(LAB / "runs").glob("*/done.json"), *(ROOT / "asymlib").glob("*.py"), *DOCS.glob("*.py"))
    newest = max(path.stat().st_mtime for path in sources)
    for m in CATALOGUE.values():
        trained, beside = m.name in set(metrics.variant), ["reinforce", "grpo", m.name]
        write(f"methods/{m.name}-curve.svg", svg(lambda ax, m=m: draw_curve(ax, m), (6.4, 3.2)))
        write(f"_generated/static/{m.name}.svg", svg(lambda ax, m=m: draw_thumbnail(ax, m), (3.2, 1.6)))
        runs_picture = DOCS / f"methods/{m.name}-runs.svg"
        written.add(runs_picture)
        if trained and (not runs_picture.exists() or runs_picture.stat().st_mtime < newest):  # a second each
            write(f"methods/{m.name}-runs.svg", svg(lambda axes, m=m: draw_runs(axes, metrics, m), (11, 3.2), columns=3))
        page = template.render(
            m=m, G=G, trained=trained, idea=ideas.get(m.name, ""), metrics=metrics_table(),
            pos=formula(m, "pos"), neg=formula(m, "neg"), advantages=advantages(m), settings=settings(m), verl=verl_settings(m),
            paper=table(paper[paper.name.isin(["base", *beside])].drop(columns=["name", "group"])),
            lab=table(lab[lab.iloc[:, 1].isin([CATALOGUE[name].label for name in beside])]),
        )  # fmt: skip
        write(f"methods/{m.name}.md", page)
        entries.append((f"methods/{m.name}", f"{m.name}.svg", m.label, ideas.get(m.name, m.source)))
    for name, some in (("methods", entries[: len(METHODS)]), ("relatives", entries[len(METHODS) :])):
        write(f"_generated/{name}.md", cards(some) + toctree(page for page, *_ in some))
    rows = [[m.label, f"`{m.name}`", m.source] for m in RELATED.values()]
    write("_generated/relatives_table.md", table(pd.DataFrame(rows, columns=["method", "name", "source, and how it was read"])))


def formula(m: Method, side: str) -> str:
    """TeX of one side's curve with the method's own numbers; the code's name for a curve without words."""
    tex = WORDS["curves"].get(m.curve, {}).get(side, rf"\text{{{CURVES[m.curve].make.__name__}}}")
    tex = re.sub("<(\\w+)>", lambda match: f"{getattr(m, match[1]):g}", tex)
    weight = getattr(m, f"weight_{side}")
    if weight != 1:
        return "0" if weight == 0 else rf"{weight:g} \left[{tex}\right]"
    return tex + (" = 1" if side == "pos" else " = -1") * tex.endswith("^{0}")


def advantages(m: Method) -> str:
    pos, neg = ((side.round(3) + 0.0).tolist() for side in m.table(G))
    rows = [["right", "", *pos[1:]], ["wrong", *neg[:-1], ""]]
    return rows_of(["right of 8", *range(G + 1)], rows)


def settings(m: Method) -> str:
    """Every setting of the method that means something for its curve, with where its value is from."""
    rows = []
    for name in CHANGEABLE:
        value, default = getattr(m, name), Method.model_fields[name].default
        if value is not None:
            what, usual = WORDS["settings"].get(name, ("", ""))
            shown = ", ".join(f"{part:g}" for part in value) if isinstance(value, tuple) else value
            rows.append([f"`{name}`", shown, what, usual if value == default else m.source])
    return rows_of(["setting", "value", "what it is", "source"], rows)


def verl_settings(m: Method) -> str:
    """What the method is on verl with the paper's Qwen3-4B: every override, and where its value comes from."""
    rows = verl.settings(make_spec(method=m.name, policy="Qwen/Qwen3-4B"), Path("results/h100/runs/<run>"), Path("data"))
    return rows_of(["verl's setting", "value", "source"], [[f"`{key}`", f"`{value}`", source] for key, value, source in rows])
