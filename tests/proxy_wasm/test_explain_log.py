"""The explain log: what `log_level: trace` says of each crossing, and what it never says."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

import pytest

from wasm_middleware import limits
from wasm_middleware.abi import pairs
from wasm_middleware.abi.enums import LogLevel, Status
from wasm_middleware.abi.signatures import HOST_CALLS, WASI_CALLS
from wasm_middleware.errors import GuestError

from . import harness
from .harness import (
    LOGGER,
    OUT,
    REQUEST,
    Guest,
    MakeGuest,
    begin,
    call,
    held_in_body,
    held_in_headers,
    new_stream,
    respond,
    run,
    trap,
)
from .test_pointers import MAX

GET, ADD = "proxy_get_header_map_value", "proxy_add_header_map_value"
PASSWORD = b"correct horse"
CONFIG = json.dumps({"header": "x-user", "upstreams": [{"password": PASSWORD.decode()}]}).encode()
ENVIRONMENT = (("TOKEN", "s3cr3t!"), ("REGION", "eu"))


@pytest.fixture
def guest(make_guest: MakeGuest, caplog: pytest.LogCaptureFixture) -> Guest:
    caplog.set_level(1, LOGGER.name)
    made = make_guest(log_level=LogLevel.TRACE, config=CONFIG, environment=ENVIRONMENT)
    caplog.clear()
    return made


def lines(caplog: pytest.LogCaptureFixture, name: str = "") -> list[str]:
    """What the explain log says of one call or callback, or of all but the harness's own."""
    messages = [record.getMessage() for record in caplog.records if record.levelno == 5]
    return [text for text in messages if text.startswith(name) and "on_tick" not in text]


def line(guest: Guest, caplog: pytest.LogCaptureFixture, name: str, *arguments: object) -> str:
    """Make a call in a stream whose headers the guest holds; the one line about it."""
    context = held_in_headers(guest)
    caplog.clear()
    guest.ask(context, name, *arguments)  # type: ignore[arg-type]
    [said] = lines(caplog)
    return said


# Host calls


def test_a_call_has_its_arguments_and_what_came_of_it(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    there = line(guest, caplog, GET, 0, guest.text(b"accept"), OUT, OUT + 4)
    missing = line(guest, caplog, GET, 0, guest.text(b"x-user"), OUT, OUT + 4)

    assert there == f'{GET}(http_request_headers, "accept") -> OK "text/html"'
    assert missing == f'{GET}(http_request_headers, "x-user") -> NOT_FOUND'


def test_every_kind_of_argument_has_its_form(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    text = guest.text
    sent = text(pairs.encode([(b":method", b"GET"), (b":path", b"/"), (b":authority", b"auth")]))
    shown = '{":method": "GET", ":path": "/", ":authority": "auth"}'
    expected: dict[tuple[str, tuple[object, ...]], str] = {
        ("proxy_get_buffer_bytes", (1, 3, 9, OUT, OUT + 4)): (
            "(http_response_body, start=3, max_size=9) -> NOT_FOUND"
        ),
        (
            "proxy_get_header_map_size",
            (0, OUT),
        ): f"(http_request_headers) -> OK size={pairs.encoded_size(REQUEST)}",
        ("proxy_get_header_map_size", (9, OUT)): "(map_type=9) -> BAD_ARGUMENT",
        ("proxy_close_stream", (7,)): "(stream_type=7) -> BAD_ARGUMENT",
        ("proxy_define_metric", (1, text(b"size"), OUT)): '(gauge, "size") -> OK metric=5',
        ("proxy_increment_metric", (5, MAX << 32 | MAX)): "(metric=5, delta=-1) -> OK",
        ("proxy_get_metric", (5, OUT)): f"(metric=5) -> OK value={(1 << 64) - 1}",
        ("proxy_set_property", (text(b"a\0b"), text(b"\1\n\xff"))): r'("a.b", "\x01\n\xff") -> OK',
        ("proxy_get_property", (text(b"request\0path"), OUT, OUT + 4)): (
            '("request.path") -> OK "/items/7?size=large"'
        ),
        ("proxy_set_shared_data", (text(b"k"), text("ü\u202e".encode()), 0)): (
            '("k", "ü\\u202e", cas=0) -> OK'
        ),
        ("proxy_get_shared_data", (text(b"k"), OUT, OUT + 4, OUT + 8)): (
            '("k") -> OK "ü\\u202e" cas=1'
        ),
        ("proxy_http_call", (text(b"auth"), sent, text(b'say "hi"'), text(b""), 50, OUT)): (
            f'("auth", {shown}, "say \\"hi\\"", {{}}, timeout=50) -> OK call=1'
        ),
        ("proxy_get_current_time_nanoseconds", (OUT,)): "() -> OK time=1700000000000000000",
        ("proxy_get_status", (OUT, OUT + 4, OUT + 8)): '() -> OK code=0 ""',
        ("proxy_done", ()): "() -> OK",
        ("pthread_equal", (3, 3)): "(left=3, right=3) -> 1",
        ("emscripten_notify_memory_growth", (0,)): "() -> nothing",
        ("fd_prestat_get", (3, OUT)): f"(3, {OUT}) -> EBADF",
        ("clock_time_get", (2, 0, OUT)): "(clock=2) -> ENOTSUP",
        ("random_get", (OUT, 4)): "(size=4) -> OK",
    }

    for (name, arguments), form in expected.items():
        assert line(guest, caplog, name, *arguments) == name + form


@pytest.mark.parametrize("name", sorted({*HOST_CALLS, *WASI_CALLS} - {"proc_exit", "proxy_log"}))
@pytest.mark.parametrize("value", [0, 8, MAX])
def test_whatever_a_call_is_given_there_is_a_line_and_the_same_answer(
    guest: Guest,
    make_guest: MakeGuest,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: int,
) -> None:
    count = {**HOST_CALLS, **WASI_CALLS}[name].signature.index(">")
    untraced = make_guest(config=CONFIG, environment=ENVIRONMENT, vm_id="other")

    said = line(guest, caplog, name, *[value] * count)

    assert said.startswith(f"{name}(")
    assert guest.u32(harness.STATUS_AT) == untraced.ask(
        held_in_headers(untraced), name, *[value] * count
    )


def test_a_bad_pointer_is_shown_as_one(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    said = line(guest, caplog, GET, 0, MAX - 7, 3, OUT, OUT + 4)

    pointer = f"a pointer to 3 bytes at {MAX - 7}"
    assert said.startswith(f"{GET}(http_request_headers, <{pointer}")
    assert f"-> INVALID_MEMORY_ACCESS: {pointer}" in said


def test_malformed_pairs_are_shown_as_such(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    said = line(guest, caplog, "proxy_set_header_map_pairs", 0, guest.text(b"xx"))

    assert said.endswith("(http_request_headers, <shorter than a count>) -> OK")


def test_what_is_long_is_cut_and_says_so(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    most = limits.MAX_TRACED_BYTES
    value = line(guest, caplog, ADD, 0, guest.text(b"x"), guest.text(b"y" * (most + 1)))
    many = [(b"n%d" % number, b"") for number in range(limits.MAX_TRACED_PAIRS + 3)]
    all_of_them = guest.text(pairs.encode(many))
    headers = line(guest, caplog, "proxy_set_header_map_pairs", 0, all_of_them)

    assert value == f'{ADD}(http_request_headers, "x", "{"y" * most}"… ({most + 1} bytes)) -> OK'
    assert headers.endswith(f'"n{limits.MAX_TRACED_PAIRS - 1}": "", 3 more}}) -> OK')


def test_very_much_is_not_even_looked_at(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    value = guest.text(b"y" * (limits.MAX_PAIRS_BYTES + 1))
    said = line(guest, caplog, "proxy_set_shared_data", guest.text(b"k"), value, 0)

    assert said == f'proxy_set_shared_data("k", {limits.MAX_PAIRS_BYTES + 1} bytes, cas=0) -> OK'


def test_no_text_can_make_a_line_of_its_own(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    forged = b'x") -> OK\r\n\x1b[2Jproxy_log("all is well'
    said = line(guest, caplog, GET, 0, guest.text(forged), OUT, OUT + 4)

    assert said.isprintable()
    assert r'"x\") -> OK\r\n\x1b[2Jproxy_log(\"all is well"' in said


def test_a_guest_that_ends_itself_has_a_line(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    context = held_in_headers(guest)

    with pytest.raises(GuestError):
        guest.ask(context, "proc_exit", 3)

    assert lines(caplog, "proc_exit") == ["proc_exit(code=3) -> it ended itself with exit code 3"]


# Secrets


@pytest.mark.parametrize("name", ["Authorization", "proxy-authorization", "COOKIE", "x-api-key"])
def test_credentials_are_shown_by_their_length(
    guest: Guest, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    secret = b"let me in"
    key = guest.text(name.encode())
    context = held_in_headers(guest, [*REQUEST, (name.lower().encode(), secret)])
    sent = guest.text(pairs.encode([(name.encode(), secret)]))
    caplog.clear()
    guest.ask(context, GET, 0, key, OUT, OUT + 4)
    assert guest.got() == secret
    guest.ask(context, "proxy_get_header_map_pairs", 0, OUT, OUT + 4)
    guest.ask(context, ADD, 0, key, guest.text(secret))
    guest.ask(context, "proxy_replace_header_map_value", 0, key, guest.text(secret))
    guest.ask(context, "proxy_set_header_map_pairs", 0, sent)
    path = guest.text(f"request\0headers\0{name}".encode())
    guest.ask(context, "proxy_get_property", path, OUT, OUT + 4)
    assert guest.got() == secret
    guest.ask(context, "proxy_get_property", guest.text(b"request\0headers"), OUT, OUT + 4)
    assert secret in guest.got()
    guest.ask(context, "proxy_set_property", path, guest.text(secret))
    guest.ask(context, "proxy_send_local_response", 200, 0, 0, 0, 0, sent, MAX)
    names = (guest.text(b"auth"), guest.text(b"auth.v1.Auth"), guest.text(b"Check"))
    guest.ask(context, "proxy_grpc_stream", *names, sent, OUT)

    assert "let me in" not in caplog.text
    assert len(lines(caplog)) == 10
    assert [f"{len(secret)} bytes" in text for text in lines(caplog)].count(False) == 1


def test_an_answers_cookies_are_credentials(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.on(
        "proxy_on_response_headers",
        call(GET, 2, guest.text(b"set-cookie"), OUT, OUT + 4),
        call("proxy_get_header_map_pairs", 2, OUT, OUT + 4),
    )
    stream = new_stream(guest)
    begin(stream)
    respond(stream, [(b":status", b"200"), (b"set-cookie", b"session=abcd")])

    assert lines(caplog, GET) == [f'{GET}(http_response_headers, "set-cookie") -> OK 12 bytes']
    assert "session" not in caplog.text


@pytest.mark.parametrize("buffer", [6, 7])
def test_configurations_are_never_shown(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, buffer: int
) -> None:
    caplog.set_level(1, LOGGER.name)
    guest = make_guest(log_level=LogLevel.TRACE, config=b"abcd efgh", vm_config=b"ijkl mnop")
    root = harness.root_of(guest)
    guest.ask(root, "proxy_get_buffer_bytes", buffer, 0, 3, OUT, OUT + 4)
    guest.ask(root, "proxy_get_configuration", OUT, OUT + 4)

    assert "3 bytes" in lines(caplog, "proxy_get_buffer_bytes")[0]
    assert lines(caplog, "proxy_get_configuration") == ["proxy_get_configuration() -> OK 9 bytes"]
    assert not any(text in caplog.text for text in ("abc", "ijk"))


@pytest.mark.parametrize(
    "value", [PASSWORD, b"Bearer " + PASSWORD, b"horse", CONFIG, b"token=s3cr3t!", b"s3cr3t"]
)
def test_what_the_plugin_was_configured_with_is_shown_by_its_length(
    guest: Guest, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    said = line(guest, caplog, ADD, 0, guest.text(b"x-user"), guest.text(value))

    assert said == f'{ADD}(http_request_headers, "x-user", {len(value)} bytes) -> OK'


@pytest.mark.parametrize("value", [b"eu", b"alice", b"correct mule"])
def test_what_it_was_not_is_shown(
    guest: Guest, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    said = line(guest, caplog, ADD, 0, guest.text(b"x-user"), guest.text(value))

    assert said == f'{ADD}(http_request_headers, "x-user", "{value.decode()}") -> OK'


def test_the_configuration_of_a_route_is_secret_too(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    value = guest.text(b"of the route")
    guest.on("proxy_on_configure", call("proxy_set_property", guest.text(b"x"), value), returns=1)
    run(guest.vm.add_root(b'{"password": "of the route"}'))

    assert lines(caplog, "proxy_set_property") == ['proxy_set_property("x", 12 bytes) -> OK']
    assert "of the route" not in caplog.text


def test_a_configuration_that_is_no_json_is_taken_word_by_word(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1, LOGGER.name)
    guest = make_guest(log_level=LogLevel.TRACE, config=b"user=admin password='swordfish'")
    said = line(guest, caplog, ADD, 0, guest.text(b"x"), guest.text(b"it is swordfish."))

    assert said == f'{ADD}(http_request_headers, "x", 16 bytes) -> OK'


def test_a_key_that_is_to_sign_something_is_not_shown(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    name, key = guest.text(b"sign"), guest.text(b"-----BEGIN PRIVATE KEY-----")
    said = line(guest, caplog, "proxy_call_foreign_function", name, key, OUT, OUT + 4)

    assert said == 'proxy_call_foreign_function("sign", 27 bytes) -> NOT_FOUND'


# Callbacks


def test_a_callback_has_a_line_when_it_begins_and_one_when_it_ends(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    guest.on("proxy_on_request_headers", call("proxy_log", 2, guest.text(b"hello")), returns=1)
    stream = new_stream(guest)
    begin(stream, ended=True)

    said = "on_request_headers(context 2, 8 headers, end_of_stream)"
    assert [record.getMessage() for record in caplog.records] == [
        "enter on_context_create(context 2, parent 1)",
        "on_context_create(context 2, parent 1) -> nothing",
        f"enter {said}",
        "hello",
        'proxy_log(info, "hello") -> OK',
        f"{said} -> PAUSE",
    ]
    fields = vars(caplog.records[2])
    assert (fields["plugin"], fields["phase"], fields["context_id"], fields["guest"]) == (
        "tested",
        "on_request_headers",
        2,
        False,
    )


@pytest.mark.parametrize(
    ("callback", "returns", "said"),
    [
        ("proxy_on_request_headers", 0, "CONTINUE"),
        ("proxy_on_request_headers", 3, "STOP_ALL_ITERATION_AND_BUFFER"),
        ("proxy_on_request_headers", 77, "77"),
        ("proxy_on_request_body", 1, "PAUSE"),
        ("proxy_on_request_body", 3, "STOP_ITERATION_NO_BUFFER"),
        ("proxy_on_request_trailers", 2, "2"),
        ("proxy_on_configure", 0, "false"),
        ("proxy_on_done", 1, "true"),
        ("proxy_on_log", 0, "nothing"),
    ],
)
def test_what_a_callback_answers_has_a_name(
    guest: Guest, caplog: pytest.LogCaptureFixture, callback: str, returns: int, said: str
) -> None:
    guest.on(callback, returns=returns)
    function = guest.vm.guest.function(callback)
    assert function is not None
    run(guest.vm.enter(None, function, "", 5, 6, 7))

    assert lines(caplog)[-1].endswith(f" -> {said}")


@pytest.mark.parametrize(
    ("callback", "arguments", "said"),
    [
        ("proxy_on_request_body", (2, 30, 0), "context 2, 30 bytes"),
        ("proxy_on_response_body", (2, 0, 1), "context 2, 0 bytes, end_of_stream"),
        (
            "proxy_on_http_call_response",
            (1, 7, 3, 20, 0),
            "context 1, call 7, 3 headers, 20 bytes, 0 trailers",
        ),
        ("proxy_on_grpc_close", (1, 7, 14), "context 1, call 7, status 14"),
        ("proxy_on_queue_ready", (1, 4), "context 1, queue 4"),
        ("proxy_on_downstream_connection_close", (2, 2), "context 2, remote peer"),
    ],
)
def test_what_a_callback_is_told_has_a_name(
    guest: Guest,
    caplog: pytest.LogCaptureFixture,
    callback: str,
    arguments: Sequence[int],
    said: str,
) -> None:
    function = guest.vm.guest.function(callback)
    assert function is not None
    run(guest.vm.enter(None, function, "", *arguments))

    assert lines(caplog)[0] == f"enter {callback.removeprefix('proxy_')}({said})"


def test_a_callback_that_fails_has_a_line(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.on("proxy_on_request_headers", trap())
    begin(new_stream(guest))

    assert lines(caplog)[-1].startswith("on_request_headers(context 2, 8 headers) -> failed: ")


def test_a_guest_under_trace_does_what_it_does(guest: Guest) -> None:
    context = held_in_body(guest, b"body")

    assert guest.ask(context, "proxy_set_buffer_bytes", 0, 0, 4, guest.text(b"other")) == Status.OK
    guest.ask(context, "proxy_get_buffer_bytes", 0, 0, 9, OUT, OUT + 4)
    assert guest.got() == b"other"
    assert [name for name, _ in guest.shut_down()][-1] == "proxy_on_delete"


# At any other level


@pytest.mark.parametrize("level", [level for level in LogLevel if level > LogLevel.TRACE])
def test_there_is_nothing_of_it_at_other_levels(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture, level: LogLevel
) -> None:
    caplog.set_level(1, LOGGER.name)
    guest = make_guest(log_level=level)
    held_in_headers(guest)
    guest.ask(harness.root_of(guest), "proxy_get_header_map_pairs", 0, OUT, OUT + 4)

    assert guest.vm.guest is guest.instance
    assert not [record for record in caplog.records if record.levelno < logging.DEBUG]
