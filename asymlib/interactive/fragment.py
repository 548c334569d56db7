"""A piece of HTML that needs no kernel, server or network: the same on the static site and in a notebook's output."""

from __future__ import annotations

import json
from importlib.resources import files


def fragment(name: str, data: dict) -> str:
    """A `<div>` with `data` as JSON in it, the style, and `chart.js` and `<name>.js`, which fill every such `<div>`."""
    read = {part: files(__package__).joinpath(part).read_text() for part in ("style.css", "chart.js", f"{name}.js")}
    content = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")  # no </script> inside
    return (
        f'<div class="asymlib asymlib-{name}">\n<style>{read["style.css"]}</style>\n'
        f'<script type="application/json">{content}</script>\n'
        "<noscript>This picture is interactive and needs JavaScript.</noscript>\n</div>\n"
        f"<script>(() => {{\n{read['chart.js']}\n{read[f'{name}.js']}\n}})();</script>\n"
    )
