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


def k_wire_text(fit: pd.Series | dict[str, Any]) -> str:
    """k of the wire with the half-width of its interval, ``2.001 ± 0.002``; a dash where it is not known."""
    half = (fit["k_wire_high"] - fit["k_wire_low"]) / 2
    if math.isnan(fit["k_wire"]) or math.isnan(half):
        return number(fit["k_wire"], 3)
    digits = 3 if half < 0.0995 else 2
    return f"{number(fit['k_wire'], digits)} ± {number(max(half, 10**-digits), digits)}"


def slope_text(fit: pd.Series | dict[str, Any]) -> str:
    """The fitted line in words: ``310 ms + 2.01 [1.99, 2.03] RTT``; why not, when there is none."""
    if math.isnan(fit["k"]):
        return str(fit["note"]).split(";", maxsplit=1)[0] or "no fit"
    k = k_text(fit)
    sign, k = ("−", k[1:]) if k.startswith("−") else ("+", k)
    return f"{number(fit['service_ms'], 0 if abs(fit['service_ms']) >= 100 else 1)} ms {sign} {k} RTT"


def percent(share: float) -> str:
    """A share as ``0.25 %``: two digits that say something, never an exponent; what is less is said to be."""
    if share is None or math.isnan(share):
        return "–"
    value = 100 * share
    if 0 < value < 0.01:
        return "< 0.01 %"
    text = number(value, max(0, 1 - math.floor(math.log10(value))) if 0 < value < 10 else 0)
    # A few of very many that did not fail are not none.
    text = "> 99" if text == "100" and value < 100 else text.rstrip("0").rstrip(".") if "." in text else text
    return f"{text} %"


def ms(value: float) -> str:
    """A round trip that was asked for as a person wrote it, to the microsecond and without an exponent."""
    text = number(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text else text


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed digits and a real minus sign; no "-0.00"; a dash for one that is not known."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
