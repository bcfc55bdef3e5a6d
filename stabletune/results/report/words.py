"""Numbers and text as the page shows them; everything a user could have written is escaped here."""

from __future__ import annotations

import html
import math
from typing import Any

STATUS_MARKS = {"completed": "●", "stopped": "■", "diverged": "▲", "pruned": "○", "failed": "✕"}
NOTHING = "–"


def escape(value: Any) -> str:
    """Any value as text that HTML cannot mistake for markup."""
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")  # a path may hold bytes that are no text
    return html.escape(text, quote=True)


def number(value: Any) -> str:
    """A number in at most four digits; None and missing values as a dash."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _short(value)
    return escape(value)


def setting(value: Any) -> str:
    """A hyperparameter with all its digits that matter; a switched-off one says so."""
    return "off" if value is None or value is False else number(value if value is not True else "on")


def share(part: int, whole: int) -> str:
    """``part of whole``, or a dash when there is nothing to count."""
    return f"{number(part)} of {number(whole)}" if whole else NOTHING


def tag(name: str, content: str, **attributes: str) -> str:
    """One element; ``content`` is markup already, attribute values are escaped (``class_`` gives ``class``)."""
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>"


def table(head: list[str], rows: list[list[str]], **attributes: str) -> str:
    """A table in a box that scrolls sideways on a narrow screen; cells are markup already."""
    top = tag("thead", tag("tr", "".join(tag("th", cell, scope="col") for cell in head)))
    body = tag("tbody", "".join(tag("tr", "".join(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", top + body, **attributes), class_="scroll", tabindex="0")


def status(name: str) -> str:
    """A trial's status with its mark, so that color is never the only sign."""
    return tag("span", f"{STATUS_MARKS.get(name, '')}&nbsp;{escape(name)}", class_=f"status {name}")


def _short(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    if not math.isfinite(value):
        return str(value)
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
