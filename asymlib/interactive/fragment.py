"""A piece of HTML that needs no kernel, server or network: the same on the static site and in a notebook's output."""

import json
from importlib.resources import files


class Fragment(str):
    """HTML that a notebook displays."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<HTML of {len(self)} characters>"


def fragment(name: str, data: dict) -> Fragment:
    """A `<div>` with `data` as JSON in it, the style, and `chart.js` and `<name>.js`, which fill every such `<div>`."""
    style, chart, own = (files(__package__).joinpath(part).read_text() for part in ("style.css", "chart.js", f"{name}.js"))
    content = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")  # neither </script> nor <!--
    return Fragment(
        f'<div class="asymlib asymlib-{name}">\n<style>{style}</style>\n<script type="application/json">{content}</script>\n'
        "<noscript>This picture is interactive and needs JavaScript.</noscript>\n</div>\n"
        f"<script>(() => {{\n{chart}\n{own}\n}})();</script>\n"
    )
