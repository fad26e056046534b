"""Numbers as a person reads them: the same in figures, tables and the report."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd


def k_text(fit: pd.Series | dict[str, Any]) -> str:
    """k with its interval, ``2.01 [1.99, 2.03]``, with as many digits as the interval has something to say."""
    if math.isnan(fit["k"]):
        return "–"
    if math.isnan(fit["k_low"]):
        return number(fit["k"])
    digits = 2 if fit["k_high"] - fit["k_low"] >= 0.02 else 3
    return f"{number(fit['k'], digits)} [{number(fit['k_low'], digits)}, {number(fit['k_high'], digits)}]"


def slope_text(fit: pd.Series | dict[str, Any]) -> str:
    """The fitted line in words: ``310 ms + 2.01 [1.99, 2.03] RTT``; why not, when there is none."""
    if math.isnan(fit["k"]):
        return str(fit["note"]).split(";", maxsplit=1)[0] or "no fit"
    return f"{number(fit['service_ms'], 0 if abs(fit['service_ms']) >= 100 else 1)} ms + {k_text(fit)} RTT"


def number(value: float, digits: int = 2) -> str:
    """A number with fixed digits and a real minus sign; no "-0.00"; a dash for one that is not known."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
