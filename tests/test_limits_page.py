"""docs/limits.md says what is true: each number is the code's, each test is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wasm_middleware import limits
from wasm_middleware.config.settings import PluginSettings, UpstreamSettings
from wasm_middleware.config.units import format_duration, format_size

PAGE = Path(__file__).parents[1] / "docs" / "limits.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and "](../tests/" in line
]
NUMBER = re.compile(r"([0-9,.]+[A-Za-z]*) \(`([A-Z_]+)`\)")
LINK = re.compile(r"\[`(\w+)`\]\((\.\./tests/[\w/.]+)\)")


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_true(row: list[str]) -> None:
    _, default, key, _, link = row

    for shown, name in NUMBER.findall(default):
        value = getattr(limits, name)
        forms = (f"{value:,}", format_size(int(value)), format_duration(value))
        assert shown in forms, name

    assert default == "none" or NUMBER.search(default)

    if key != "–":
        name = key.strip("`")
        assert name in PluginSettings.model_fields or name in UpstreamSettings.model_fields

    match = LINK.fullmatch(link)
    assert match is not None
    assert f"def {match[1]}(" in (PAGE.parent / match[2]).read_text(encoding="utf-8")
