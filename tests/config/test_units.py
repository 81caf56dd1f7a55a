from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from wasm_middleware.config.problems import Mistake
from wasm_middleware.config.units import (
    MAX_DURATION,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from wasm_middleware.limits import GIB, KIB, MIB


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("2KB", 2 * KIB),
        ("16MB", 16 * MIB),
        ("16MiB", 16 * MIB),
        ("16 mb", 16 * MIB),
        ("1.5KB", 1536),
        ("4GB", 4 * GIB),
        ("4GiB", 4 * GIB),
    ],
)
def test_mb_and_mib_are_the_same_size(text: str, size: int) -> None:
    assert parse_size(text, least=1, most=4 * GIB) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5us", 5e-6), ("50ms", 0.05), ("1.5s", 1.5), ("2 m", 120.0), ("24h", 86_400.0)],
)
def test_a_duration_becomes_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (16, "16 has no unit"),
        ("16", "'16' has no unit"),
        ("16 parsecs", "'16 parsecs' has an unknown unit"),
        ("MB", "expected a size such as 16MB, got 'MB'"),
        ("-1MB", "expected a size such as 16MB, got '-1MB'"),
        ("١MB", "expected a size such as 16MB, got '١MB'"),
        ("9" * 400 + "MB", f"expected a size such as 16MB, got {repr('9' * 400)[:200]}…"),
        ("0.3B", "'0.3B' is not a whole number of bytes"),
        ("1KB", "'1KB' is out of bounds, expected 64KB to 4GB"),
        ("5GB", "'5GB' is out of bounds, expected 64KB to 4GB"),
        (True, "expected a size such as 16MB, got true"),
        (None, "has no value, expected a size such as 16MB"),
        (["16MB"], "expected a size such as 16MB, got a list"),
    ],
)
def test_what_is_not_a_size_is_refused(value: object, message: str) -> None:
    with pytest.raises(Mistake) as raised:
        parse_size(value, least=64 * KIB, most=4 * GIB)

    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (50, "50 has no unit"),
        (0.5, "0.5 has no unit"),
        ("50", "'50' has no unit"),
        ("50MS", "'50MS' has an unknown unit"),
        ("0ms", "'0ms' is out of bounds, expected more than 0 and at most 24h"),
        ("25h", "'25h' is out of bounds, expected more than 0 and at most 24h"),
        ("none", "expected a duration such as 50ms, got 'none'"),
        ("1m30s", "expected a duration such as 50ms, got '1m30s'"),
    ],
)
def test_what_is_not_a_duration_is_refused(value: object, message: str) -> None:
    with pytest.raises(Mistake) as raised:
        parse_duration(value)

    assert str(raised.value) == message


def test_a_number_without_a_unit_is_answered_with_what_to_write() -> None:
    with pytest.raises(Mistake) as raised:
        parse_duration(50)

    assert raised.value.problems[0].hint == "write 50ms; the units are us, ms, s, m, h"


@pytest.mark.parametrize("value", [0, 0.0, "0", "0ms", "25h", None, False])
def test_where_there_may_be_no_limit_the_word_for_it_is_named(value: object) -> None:
    with pytest.raises(Mistake) as raised:
        parse_duration(value, none=True)

    assert raised.value.problems[0].hint == "write none for no limit"

    with pytest.raises(Mistake) as raised:
        parse_duration(value)

    assert "none" not in raised.value.problems[0].hint


@given(st.integers(1, 4 * GIB))
def test_a_formatted_size_is_read_back(size: int) -> None:
    assert parse_size(format_size(size), least=1, most=4 * GIB) == size


@given(st.integers(1, int(MAX_DURATION * 1_000_000)))
def test_a_formatted_duration_is_read_back(microseconds: int) -> None:
    text = format_duration(microseconds / 1_000_000)
    assert round(parse_duration(text) * 1_000_000) == microseconds


@given(st.text())
def test_any_text_is_a_quantity_or_a_mistake(text: str) -> None:
    for parse in (parse_duration, lambda value: parse_size(value, least=1, most=GIB)):
        with contextlib.suppress(Mistake):
            assert parse(text) > 0
