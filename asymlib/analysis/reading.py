"""A table as people read it: a value beside its interval, p in two digits. Files keep every number in a column of its own."""

import math
import re

import pandas as pd


def for_reading(table: pd.DataFrame) -> pd.DataFrame:
    """'x' and '± x' as one column, '24.1 ± 3.3'; effect, low and high as one, '+0.0438 (+0.0376 to +0.0500)', and so any 'x',
    'x, low', 'x, high'; p by `p_value`.

    Empty cells are ''. The table itself stays as it is.
    """
    shown = table.astype(object).where(table.notna(), "")
    for name in [column for column in table if f"± {column}" in table]:
        halves = shown.pop(f"± {name}")
        shown[name] = [plus_minus(x, half) for x, half in zip(shown[name], halves, strict=True)]
    for name in [column for column in table if re.fullmatch("p([ ,].*)?", str(column))]:
        shown[name] = [p_value(p) for p in shown[name]]
    if {"effect", "low", "high"} <= set(table):
        low, high = shown.pop("low"), shown.pop("high")
        shown["effect"] = [effect_in(*three) for three in zip(shown["effect"], low, high, strict=True)]
        shown = shown.rename(columns={"effect": "effect (95% interval)"})
    for name in [column for column in table if f"{column}, low" in table]:
        low, high = shown.pop(f"{name}, low"), shown.pop(f"{name}, high")
        shown[name] = [effect_in(*three) for three in zip(shown[name], low, high, strict=True)]
    return shown


def plus_minus(value: float | str, half: float | str) -> str:
    """'24.1 ± 3.3': two digits of the half width, and as many places of the value; without a half width the value alone."""
    if value == "" or half == "" or not half > 0:
        return "" if value == "" else f"{value:.4g}"
    places = _places(half)
    return f"{value:.{places}f} ± {half:.{places}f}"


def _places(half: float) -> int:
    """Behind the point, so that the half width of an interval has two digits."""
    return max(0, 1 - math.floor(math.log10(half)))


def effect_in(effect: float | str, low: float | str, high: float | str) -> str:
    """'+0.0438 (+0.0376 to +0.0500)', as many places as `plus_minus` gives; of one seed '+0.0438'; '' where nothing ran."""
    if effect == "":
        return ""
    if low == "" or not high > low:
        return f"{effect:+.3g}"
    places = _places((high - low) / 2)
    return f"{effect:+.{places}f} ({low:+.{places}f} to {high:+.{places}f})"


def p_value(p: float | str) -> str:
    """Two digits as journals print them: .034, .20, '< .001'."""
    if p == "":
        return ""
    return "< .001" if p < 0.001 else f"{p:.{3 if p < 0.0995 else 2}f}".removeprefix("0")
