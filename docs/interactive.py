"""Sphinx directives {asymlib-explorer} and {asymlib-runs}: the pieces, whole; the page's address holds their state."""

from docutils import nodes
from docutils.parsers.rst import Directive

from asymlib.interactive import explorer, runs

PIECES = {"asymlib-explorer": explorer.show, "asymlib-runs": runs.show}


class Piece(Directive):
    def run(self):
        return [nodes.raw("", f"<div data-address>\n{PIECES[self.name]()}</div>\n", format="html")]


def setup(app):
    for name in PIECES:
        app.add_directive(name, Piece)
    return {"parallel_read_safe": True}
