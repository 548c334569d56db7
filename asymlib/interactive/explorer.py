"""The advantage-curve explorer: beta_pos, beta_neg, group size and flips by hand, and the nearest published method."""

from ..methods import CATALOGUE, METHODS, Method
from .fragment import Fragment, fragment

GROUP_SIZES = range(3, 33)  # a flip needs 3
BEYOND_THE_CURVE = ("weight_pos", "weight_neg", "mask_none_solved", "mask_all_solved")
DRAWN_CURVES = ("beta", "flipped_positive", "flipped_negative")  # explorer.js draws these for any beta


def data() -> dict:
    """CATALOGUE for the explorer. What is more than a drawn curve brings its tables, one per group size that it allows."""
    methods = []
    for method in CATALOGUE.values():
        row = {"name": method.name, "label": method.label, "curve": method.curve, "of_table_1": method.name in METHODS}
        changed = [name for name in BEYOND_THE_CURVE if getattr(method, name) != Method.model_fields[name].default]
        if method.curve in DRAWN_CURVES and not changed:
            row |= {"beta_pos": method.beta_pos, "beta_neg": method.beta_neg}
        else:
            row["tables"] = _tables(method)
        methods.append(row)
    return {"methods": methods, "group_sizes": [GROUP_SIZES[0], GROUP_SIZES[-1]]}


def _tables(method: Method) -> dict[int, list[list[float]]]:
    found = {}
    for group_size in GROUP_SIZES:
        try:
            found[group_size] = [[float(f"{a:.9g}") for a in side] for side in method.table(group_size)]
        except ValueError:  # the curve does not allow this group size
            continue
    return found


def show() -> Fragment:
    """The explorer, for a notebook's output or a page."""
    return fragment("explorer", data())
