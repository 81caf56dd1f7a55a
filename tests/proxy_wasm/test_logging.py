"""What guests log."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from wasm_middleware import WasmPluginMiddleware, limits
from wasm_middleware.abi.enums import LogLevel, Status
from wasm_middleware.proxy_wasm.lograte import LogRate
from wasm_middleware.proxy_wasm.ports import Services

from .harness import (
    LOGGER,
    OUT,
    FakeBackground,
    FakeClock,
    Guest,
    MakeGuest,
    Step,
    begin,
    call,
    new_stream,
    run,
    trap,
)

ROOT = Path(__file__).parents[2]

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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"\x1b[2K\x1b[1Gforged", r"\x1b[2K\x1b[1Gforged"),
        (b"a\0b\x07\x08\x0b\x0c\x7f", r"a\x00b\x07\x08\x0b\x0c\x7f"),
        ("a\x85b\x9b2Kc".encode(), r"a\x85b\x9b2Kc"),
        ("a\u2028b\u202ec\u2066d".encode(), r"a\u2028b\u202ec\u2066d"),
    ],
)
def test_what_steers_a_terminal_is_escaped(
    guest: Guest, caplog: pytest.LogCaptureFixture, text: bytes, shown: str
) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        log(guest, 2, text)

    assert caplog.records[0].message == shown


def test_what_the_host_says_of_it_is_escaped_too(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        guest.vm.log(LogLevel.INFO, "it failed: \x1b[2K\nERROR forged")

    assert caplog.records[0].message == "it failed: \\x1b[2K\n    ERROR forged"


@pytest.mark.parametrize(
    "text", ["a\tb", "tab\t\n\tand line", "Grüße, 你好\u3000\xa0\u200d!", r"\x1b"]
)
def test_ordinary_text_is_written_as_it_is(
    guest: Guest, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    with caplog.at_level(logging.INFO, LOGGER.name):
        log(guest, 2, text.encode())

    assert caplog.records[0].message == text.replace("\n", "\n    ")


def test_a_message_of_many_lines_is_cut_and_says_so(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    most = limits.MAX_LOG_LINES

    with caplog.at_level(logging.INFO, LOGGER.name):
        log(guest, 2, b"x\n" * most)
        log(guest, 2, b"x\n" * (most + 7))

    whole, cut = (record.message.split("\n    ") for record in caplog.records)
    assert whole == ["x"] * most
    assert cut == ["x"] * most + ["[7 lines more]"]


def test_what_is_printed_in_many_lines_is_a_few_records_and_complete(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    """A record takes as long as it does whatever is in it: one for each line would be too many."""
    guest = make_guest(log_rate=LogRate(limits.MAX_LOG_RATE))
    lines = [b"%x" % number for number in range(3000)]
    vector, _ = guest.text(struct.pack("<2I", *guest.text(b"\n".join(lines) + b"\n")))

    with caplog.at_level(logging.INFO, LOGGER.name):
        guest.ask(None, "fd_write", 1, vector, 1, OUT)

    most = limits.MAX_LOG_LINES
    messages = [record.message for record in caplog.records]
    assert len(messages) == most + (3000 - most) // most
    assert messages[:most] == [line.decode() for line in lines[:most]]
    assert "\n".join(messages).replace("\n    ", "\n") == b"\n".join(lines).decode()


# How much it says

SECOND = 1_000_000_000


@pytest.fixture
def clock(services: Services) -> FakeClock:
    assert isinstance(services.clock, FakeClock)
    return services.clock


def flood(guest: Guest, *lines: bytes) -> None:
    for line in lines:
        log(guest, 2, line)


def test_lines_beyond_the_rate_are_dropped_and_counted(
    make_guest: MakeGuest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(2))

    with caplog.at_level(logging.INFO, LOGGER.name):
        flood(guest, b"1", b"2", b"3", b"4", b"5")
        clock.steady += SECOND - 1
        flood(guest, b"6")
        clock.steady += 1
        flood(guest, b"7", b"8", b"9")

    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "1"),
        ("INFO", "2"),
        ("WARNING", "more than 2 lines within a second: they are dropped"),
        ("WARNING", "4 of its lines were dropped"),
        ("INFO", "7"),
        ("INFO", "8"),
        ("WARNING", "more than 2 lines within a second: they are dropped"),
    ]


def pass_time(services: Services, clock: FakeClock) -> None:
    """Until all that waits for it has come."""
    background = services.background
    assert isinstance(background, FakeBackground)

    while background.timers:
        seconds, function = background.timers.pop(0)
        clock.steady += round(seconds * SECOND)
        function()


def test_how_many_were_dropped_is_said_when_the_second_is_over_and_nothing_follows(
    make_guest: MakeGuest, services: Services, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(1))

    with caplog.at_level(logging.INFO, LOGGER.name):
        for _ in range(2):
            flood(guest, b"1", b"2", b"3")
            clock.steady += SECOND // 2
            flood(guest, b"4")
            guest.vm.close()
            pass_time(services, clock)
            guest = make_guest(log_rate=guest.vm.plugin.log_rate)

    assert [record.message for record in caplog.records] == 2 * [
        "1",
        "more than 1 lines within a second: they are dropped",
        "3 of its lines were dropped",
    ]
    assert vars(caplog.records[-1]).items() >= {"guest": False, "plugin": "tested"}.items()


def test_how_many_were_dropped_is_said_once(
    make_guest: MakeGuest, services: Services, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(1))

    with caplog.at_level(logging.INFO, LOGGER.name):
        flood(guest, b"1", b"2")
        clock.steady += SECOND
        flood(guest, b"3", b"4", b"5")
        clock.steady -= SECOND
        pass_time(services, clock)

    counts = [record.message for record in caplog.records if "were dropped" in record.message]
    assert counts == ["1 of its lines were dropped", "2 of its lines were dropped"]


def test_the_count_is_as_severe_as_what_was_dropped(
    make_guest: MakeGuest, services: Services, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A log that shows errors alone shows how many of them are missing."""
    guest = make_guest(log_rate=LogRate(1))

    with caplog.at_level(logging.ERROR, LOGGER.name):
        log(guest, 4, b"1")
        log(guest, 4, b"2")
        pass_time(services, clock)

    assert [record.message for record in caplog.records][1:] == [
        "more than 1 lines within a second: they are dropped",
        "1 of its lines were dropped",
    ]


def test_each_line_of_a_message_counts(
    make_guest: MakeGuest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(5))

    with caplog.at_level(logging.INFO, LOGGER.name):
        flood(guest, b"1\n2\n3", b"4\n5\n6\n", b"7\n8\n", b"9")
        clock.steady += SECOND
        flood(guest, b"10")

    assert [record.message for record in caplog.records] == [
        "1\n    2\n    3",
        "4\n    5\n    6",
        "more than 5 lines within a second: they are dropped",
        "3 of its lines were dropped",
        "10",
    ]


def test_instances_share_their_plugins_rate(
    make_guest: MakeGuest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    rate = LogRate(2)
    guests = [make_guest(log_rate=rate) for _ in range(3)]

    with caplog.at_level(logging.INFO, LOGGER.name):
        for guest in guests:
            flood(guest, b"hello")

    assert [record.message for record in said(caplog)] == ["hello", "hello"]


def test_a_plugin_that_floods_drops_no_line_of_another(
    make_guest: MakeGuest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    loud, quiet = make_guest(log_rate=LogRate(1)), make_guest(log_rate=LogRate(1))

    with caplog.at_level(logging.INFO, LOGGER.name):
        flood(loud, b"loud", b"loud", b"loud")
        flood(quiet, b"quiet")

    assert [record.message for record in said(caplog)] == ["loud", "quiet"]


def test_what_it_prints_and_what_the_host_says_about_it_count_too(
    make_guest: MakeGuest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(3))
    vector, _ = guest.text(struct.pack("<2I", *guest.text(b"printed\n" * 100)))
    path = guest.text(b"")

    with caplog.at_level(logging.INFO, LOGGER.name):
        guest.ask(None, "proxy_set_property", path, path)  # ignored, with a warning
        guest.ask(None, "fd_write", 2, vector, 1, OUT)

    assert [record.message for record in caplog.records] == [
        "proxy_set_property: ignored: there is no stream",
        "printed",
        "printed",
        "more than 3 lines within a second: they are dropped",
    ]


def test_lines_that_are_not_shown_do_not_count(
    make_guest: MakeGuest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(1))

    with caplog.at_level(logging.INFO, LOGGER.name):
        for _ in range(5):
            log(guest, 1, b"debug")

        flood(guest, b"info")

    assert [record.message for record in caplog.records] == ["info"]


def test_a_log_of_errors_alone_says_that_some_are_missing(
    make_guest: MakeGuest, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_rate=LogRate(1), log_level=LogLevel.ERROR)

    with caplog.at_level(logging.ERROR, LOGGER.name):
        log(guest, 4, b"1")
        log(guest, 4, b"2")

    assert [record.message for record in caplog.records] == [
        "1",
        "more than 1 lines within a second: they are dropped",
    ]


# What it says while it is unloaded


@pytest.mark.parametrize(("level", "name"), [(2, "INFO"), (3, "WARNING"), (4, "ERROR")])
@pytest.mark.parametrize("callback", ["proxy_on_done", "proxy_on_delete"])
def test_what_a_root_says_at_its_end_keeps_its_level(
    guest: Guest, caplog: pytest.LogCaptureFixture, callback: str, level: int, name: str
) -> None:
    """A plugin that can't flush says so exactly then."""
    guest.on(callback, call("proxy_log", level, guest.text(b"2 events are lost")), returns=1)

    with caplog.at_level(1, LOGGER.name):
        guest.shut_down()

    assert [(record.levelname, record.message) for record in said(caplog)] == [
        (name, "2 events are lost")
    ]


def printed(guest: Guest, text: bytes) -> Step:
    """Writing a line to standard error."""
    vector, _ = guest.text(struct.pack("<2I", *guest.text(text + b"\n")))
    return call("fd_write", 2, vector, 1, OUT)


def test_a_failure_at_the_end_leaves_what_was_said_before(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    line = printed(guest, b"abort: it can't flush in assembly/index.ts(3:1)")
    guest.on("proxy_on_done", line, call("proxy_log", 4, guest.text(b"lost")), trap())

    with caplog.at_level(1, LOGGER.name):
        guest.shut_down()

    assert [(record.levelname, record.message) for record in said(caplog)] == [
        ("ERROR", "abort: it can't flush in assembly/index.ts(3:1)"),
        ("ERROR", "lost"),
    ]
    [unloaded] = [record for record in caplog.records if "while it was unloaded" in record.message]
    assert unloaded.levelname == "INFO"


NO_SUCH_ROOT = b"abort: Key does not exist in ~lib/map.ts(105:17)"


def test_an_sdk_that_knows_no_roots_at_their_end_is_no_error(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    guest.on("proxy_on_done", printed(guest, NO_SUCH_ROOT), call("proc_exit", 255))

    with caplog.at_level(1, LOGGER.name):
        guest.shut_down()

    assert [(record.levelname, record.message) for record in said(caplog)] == [
        ("DEBUG", NO_SUCH_ROOT.decode())
    ]
    assert max(record.levelno for record in caplog.records) == logging.INFO


def test_anywhere_else_the_same_words_are_an_error(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    for callback in ("proxy_on_request_headers", "proxy_on_done"):
        guest.on(callback, printed(guest, NO_SUCH_ROOT), returns=0)

    stream = new_stream(guest)

    with caplog.at_level(1, LOGGER.name):
        begin(stream)
        run(stream.finish())

    assert [record.levelname for record in said(caplog)] == ["ERROR", "ERROR"]


def test_a_plugin_of_that_sdk_is_unloaded_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = {"name": "json", "path": str(ROOT / "example_app/plugins/json-validator.wasm")}
    app = WasmPluginMiddleware(Starlette(), config={"plugins": [plugin]})

    with caplog.at_level(logging.INFO), TestClient(app):
        pass

    assert "failed while it was unloaded: it ended itself with exit code 255" in caplog.text
    assert max(record.levelno for record in caplog.records) == logging.INFO
