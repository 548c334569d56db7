"""The site: `make site`. It renders committed notebooks and records; nothing is executed, nothing is fetched."""

import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))  # pages.py and what it imports, interactive.py
import pages

project = "asymlib"
copyright = "2026, the asymlib engineers; Apache-2.0"
extensions = ["interactive", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "_generated"]
nitpicky = True
# Types of other packages: their pages are elsewhere, and no inventory is fetched.
nitpick_ignore_regex = [(r"py:.*", r"(?!asymlib\.).*")]

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]  # a widget's view has a picture or text beside it

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}

html_theme = "pydata_sphinx_theme"
html_title = "asymlib"
html_favicon = html_logo = "_static/logo.svg"
html_static_path = ["_static", "_generated/static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
_WIDE = ("index", "explorer", "runs", "results", "claims", "methods/**", "formulas", "search", "genindex", "_modules/**")
html_sidebars = {page: [] for page in _WIDE}
html_context = {"default_mode": "auto", "site": pages.SITE, "description": pages.PROJECT["project"]["description"]}
templates_path = ["_templates"]
_LINKS = [{"name": "The paper", "url": "https://arxiv.org/abs/2604.04894", "icon": "fa-solid fa-file-lines"}]
if pages.REPOSITORY:
    _LINKS.append({"name": "The repository", "url": pages.REPOSITORY, "icon": "fa-brands fa-github"})
html_theme_options = {
    "logo": {"text": "asymlib", "alt_text": "asymlib, start page"},
    "header_links_before_dropdown": 8,
    "icon_links": _LINKS,
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}


def plain_docstring(app, what, name, obj, options, lines):
    """Our docstrings are plain text: an indented line makes its paragraph a literal block; `x` is code, *x* emphasis."""
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines))
    for i, text in enumerate(paragraphs):
        if re.search(r"^ ", text, re.M):
            paragraphs[i] = "::\n\n" + re.sub("^", "    ", text, flags=re.M)
        else:
            parts = re.split(r"`+([^`]*)`+", text)  # every second one is code
            markup = re.compile(r"(?<!\w)(\*\w+\*)(?!\w)|([|*_])")
            parts[::2] = [markup.sub(lambda match: match[1] or "\\" + match[2], part) for part in parts[::2]]
            parts[1::2] = [rf"\ ``{part}``\ " for part in parts[1::2]]
            paragraphs[i] = "".join(parts)
    lines[:] = "\n\n".join(paragraphs).split("\n")


def write_math(translator, node, block=False):
    """TeX as MathML, which browsers draw themselves: no script, no network."""
    try:
        mathml = tex2mathml(re.sub(r"\\(big|Big)\b", r"\\\1l", node.astext()), as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning("%s in %s", error, node.astext(), location=node)
        mathml = ""
    if block:
        mathml = f'<div class="math" tabindex="0" role="group" aria-label="formula">{mathml}</div>'
    translator.body.append(mathml)
    raise nodes.SkipNode


def setup(app):
    pages.write_all()
    app.connect("autodoc-process-docstring", plain_docstring)
    app.add_html_math_renderer(
        "mathml", (write_math, None), (lambda translator, node: write_math(translator, node, block=True), None)
    )
    app.config.html_math_renderer = "mathml"
