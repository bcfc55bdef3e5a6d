from __future__ import annotations

from typing import Any

import pytest

from stabletune.results.report.words import number, setting, share, tag


@pytest.mark.parametrize(
    "value, shown",
    [
        (0.00049, "4.9e-4"),
        (1e-8, "1e-8"),
        (0.9612, "0.9612"),
        (41500, "41,500"),
        (2.5, "2.5"),
        (0.0, "0"),
        (None, "–"),
        (123456.0, "1.23e5"),
        (float("inf"), "inf"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_numbers_are_short(value: Any, shown: str) -> None:
    assert number(value) == shown


def test_a_setting_that_is_off_says_so() -> None:
    assert [setting(value) for value in (None, False, True, 1.0)] == ["off", "off", "on", "1"]


def test_a_share_of_nothing_is_a_dash() -> None:
    assert share(0, 0) == "–" and share(1, 5) == "1 of 5"


def test_attributes_are_escaped() -> None:
    assert tag("p", "x", class_='a"b') == '<p class="a&quot;b">x</p>'
