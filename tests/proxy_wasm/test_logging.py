"""What guests log."""

from __future__ import annotations

import logging

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel, Status

from .harness import LOGGER, OUT, Guest, MakeGuest, begin, call, new_stream

LEVELS = ["Level 5", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


def log(guest: Guest, level: int, text: bytes) -> int:
    return guest.ask(None, "proxy_log", level, guest.text(text))


def said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the plugin itself said."""
    return [record for record in caplog.records if vars(record)["guest"]]


@pytest.mark.parametrize("level", range(6))
def test_each_level_is_one_of_pythons(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    guest = make_guest(log_level=LogLevel.TRACE)

    with caplog.at_level(1, LOGGER.name):
        assert log(guest, level, b"hello") == Status.OK

    [record] = said(caplog)
    assert (record.levelname, record.message) == (LEVELS[level], "hello")


@pytest.mark.parametrize("level", range(6))
def test_levels_below_the_plugins_are_not_logged(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    guest = make_guest(log_level=LogLevel(level))

    with caplog.at_level(1, LOGGER.name):
        statuses = [log(guest, each, b"%d" % each) for each in range(6)]

    assert statuses == [Status.OK] * 6
    assert [record.message for record in said(caplog)] == [str(n) for n in range(level, 6)]


@pytest.mark.parametrize("level", [6, 0xFFFF_FFFF])
def test_there_are_no_other_levels(guest: Guest, level: int) -> None:
    assert log(guest, level, b"hello") == Status.BAD_ARGUMENT


@pytest.mark.parametrize("level", range(6))
def test_the_level_can_be_asked_for(make_guest: MakeGuest, level: int) -> None:
    guest = make_guest(log_level=LogLevel(level))

    assert guest.ask(None, "proxy_get_log_level", OUT) == Status.OK
    assert guest.u32() == level


def test_a_record_tells_plugin_phase_and_context(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    guest.on("proxy_on_request_headers", call("proxy_log", 2, guest.text(b"hello")))
    stream = new_stream(guest)

    with caplog.at_level(logging.INFO, LOGGER.name):
        begin(stream)

    fields = vars(caplog.records[0])
    assert fields["plugin"] == "tested"
    assert fields["phase"] == "on_request_headers"
    assert fields["context_id"] == stream.contexts[0].id


def test_a_second_line_can_not_pass_for_another_message(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        log(guest, 2, b"hello\r\nERROR forged\n")

    assert caplog.records[0].message == "hello\n    ERROR forged"


def test_bytes_that_are_no_text_are_replaced(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        log(guest, 2, b"a\xffb")

    assert caplog.records[0].message == "a\ufffdb"


def test_percent_signs_are_no_format(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        log(guest, 2, b"100% %s %(plugin)s")

    assert caplog.records[0].message == "100% %s %(plugin)s"


def test_a_long_line_is_cut_and_says_so(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        log(guest, 2, b"x" * (limits.MAX_LOG_BYTES + 7))

    assert caplog.records[0].message == "x" * limits.MAX_LOG_BYTES + " [7 bytes more]"
