"""How connections end before their time: closed by a plugin, by its failure, or by a limit."""

from __future__ import annotations

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import Status
from wasm_middleware.proxy_wasm.connection import Connection
from wasm_middleware.proxy_wasm.lograte import LogRate

from .connections import (
    ALL,
    CLOSE,
    CONTINUE,
    DOWNSTREAM,
    SET,
    UPSTREAM,
    WAYS,
    direction,
    feed,
    new_connection,
    sizes,
    taken,
    ways,
)
from .harness import Guest, MakeGuest, call, run, trap


@pytest.fixture
def make(make_guest: MakeGuest) -> MakeGuest:
    def make(**options: object) -> Guest:
        return make_guest(network=True, phases=frozenset({"on_log"}), **options)

    return make


@pytest.fixture
def guest(make: MakeGuest) -> Guest:
    return make()


# Closing from within


@pytest.mark.parametrize(("which", "code"), [(DOWNSTREAM, 1008), (UPSTREAM, 1000)])
@ways
def test_a_plugin_closes_the_connection(make: MakeGuest, way: str, which: int, code: int) -> None:
    guest, other = make(), make()
    order = (guest, other) if way == "downstream" else (other, guest)
    connection = new_connection(*order)
    flow = direction(connection, way)
    feed(flow, b"before")
    closed = call(CLOSE, which)
    guest.on(f"proxy_on_{way}_data", closed)

    assert feed(flow, b"during", b"after", ended=True) == []
    assert guest.result(closed) == Status.OK
    assert connection.closing is not None
    assert (connection.closing.code, connection.closing.failed) == (code, False)
    assert sizes(other, way) == [(6, 0)]
    assert feed(flow, b"later") == []
    assert not flow.output_ended


def test_the_first_close_counts(guest: Guest) -> None:
    guest.on("proxy_on_new_connection", call(CLOSE, UPSTREAM), call(CLOSE, DOWNSTREAM))
    connection = new_connection(guest)

    assert connection.closing is not None
    assert connection.closing.code == 1000
    assert not connection.opened


def test_a_close_from_elsewhere_wakes(guest: Guest) -> None:
    connection = new_connection(guest)
    woken: list[bool] = []
    connection.on_wake = lambda: woken.append(True)
    guest.ask(connection.contexts[0], CLOSE, DOWNSTREAM)

    assert woken == [True]
    assert connection.closing is not None


def test_what_is_held_is_dropped_with_the_connection(guest: Guest) -> None:
    guest.on("proxy_on_downstream_data", returns=1)
    connection = new_connection(guest)
    feed(connection.downstream, b"held")
    guest.ask(connection.contexts[0], CLOSE, UPSTREAM)
    guest.ask(connection.contexts[0], CONTINUE, DOWNSTREAM)
    run(connection.proceed())

    assert taken(connection.downstream) == []
    assert connection.deadline is None


def test_closing_what_is_over_is_fine(guest: Guest) -> None:
    guest.on("proxy_on_log", call(CLOSE, DOWNSTREAM))
    connection = new_connection(guest)
    run(connection.finish())

    assert connection.closing is None


def test_a_local_reply_is_ignored(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    connection = new_connection(guest)
    nothing = guest.text(b"")
    status = guest.ask(
        connection.contexts[0],
        "proxy_send_local_response",
        403,
        nothing,
        nothing,
        nothing,
        0xFFFF_FFFF,
    )

    assert status == Status.OK
    assert connection.closing is None
    assert "a local reply (403) is ignored" in caplog.text


# Failures

STEPS = ["new_connection", "downstream_data", "upstream_data"]


def reach(connection: Connection, step: str) -> list[bytes | str]:
    run(connection.open())

    if step == "new_connection":
        return []

    return feed(direction(connection, step.removesuffix("_data")), b"one", b"two", b"three")


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_closes_the_connection(
    guest: Guest, step: str, caplog: pytest.LogCaptureFixture
) -> None:
    guest.on(f"proxy_on_{step}", trap())
    connection = new_connection(guest, opened=False)

    assert reach(connection, step) == []
    assert connection.closing is not None
    assert (connection.closing.code, connection.closing.failed) == (1011, True)
    assert f"plugin 'tested' in on_{step}" in caplog.text
    run(connection.finish())
    assert not guest.vm.contexts.keys() - {root.id for root in guest.vm.roots.values()}


@pytest.mark.parametrize("step", STEPS)
def test_fail_open_leaves_the_plugin_out(make: MakeGuest, step: str) -> None:
    guest, other = make(fail_open=True), make()
    guest.on(f"proxy_on_{step}", trap())
    connection = new_connection(guest, other, opened=False)
    output = reach(connection, step)

    assert connection.closing is None
    assert connection.opened
    assert output == ([] if step == "new_connection" else [b"one", b"two", b"three"])
    assert feed(connection.downstream, b"more") == [b"more"]


@ways
def test_fail_open_lets_go_what_it_held(make: MakeGuest, way: str) -> None:
    guest = make(fail_open=True)
    guest.on(f"proxy_on_{way}_data", returns=1)
    guest.on(f"proxy_on_{way}_data", trap())
    flow = direction(new_connection(guest), way)

    assert feed(flow, b"one", "two", ended=True) == [b"one", "two"]
    assert flow.output_ended


@pytest.mark.parametrize("fail_open", [False, True])
def test_an_instance_that_is_lost_elsewhere_applies_the_policy(
    make: MakeGuest, fail_open: bool
) -> None:
    guest = make(fail_open=fail_open)
    guest.on("proxy_on_downstream_data", returns=1)
    holding, idle = new_connection(guest), new_connection(guest)
    other = new_connection(guest)
    feed(holding.downstream, b"held")
    guest.again("proxy_on_downstream_data")
    guest.on("proxy_on_upstream_data", trap())
    feed(other.upstream, b"x")

    assert idle.closing is None
    assert (holding.closing is None) is fail_open
    run(holding.proceed())
    # What came first stays first.
    assert taken(holding.downstream) == ([b"held"] if fail_open else [])
    assert feed(idle.downstream, b"y") == ([b"y"] if fail_open else [])


def test_new_data_does_not_overtake_what_a_lost_plugin_held(make: MakeGuest) -> None:
    guest = make(fail_open=True)
    guest.on("proxy_on_downstream_data", returns=1)
    holding, other = new_connection(guest), new_connection(guest)
    feed(holding.downstream, b"first")
    guest.on("proxy_on_upstream_data", trap())
    feed(other.upstream, b"x")

    assert feed(holding.downstream, b"second") == [b"first", b"second"]
    run(holding.proceed())
    assert taken(holding.downstream) == []


# Limits and time


@ways
def test_more_than_its_limit_is_too_big(
    make: MakeGuest, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make(body_limit=5, fail_open=True)
    guest.on(f"proxy_on_{way}_data", returns=1)
    connection = new_connection(guest)
    flow = direction(connection, way)
    feed(flow, b"five!")
    assert connection.closing is None

    feed(flow, b"6")
    assert connection.closing is not None
    assert (connection.closing.code, connection.closing.failed) == (1009, True)
    assert "body_limit of 5 bytes" in caplog.text


@ways
def test_data_that_is_made_too_large_again_and_again_is_one_line_in_the_log(
    make: MakeGuest, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make(body_limit=5)
    too_large = call(SET, WAYS[way], 0, ALL, guest.text(b"123456"))
    guest.on(f"proxy_on_{way}_data", *[too_large] * 10)
    connection = new_connection(guest)
    feed(direction(connection, way), b"1")

    assert connection.closing is not None
    assert (connection.closing.code, connection.closing.failed) == (1009, True)
    assert caplog.text.count("body_limit of 5 bytes") == 1


def test_data_beyond_the_limit_counts_as_lines_of_the_plugins_log(
    make: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make(body_limit=5, log_rate=LogRate(2))
    guest.on("proxy_on_downstream_data", returns=1)
    connections = [new_connection(guest) for _ in range(5)]

    for connection in connections:
        feed(connection.downstream, b"123456")

    assert all(connection.closing is not None for connection in connections)
    assert caplog.text.count("body_limit of 5 bytes") == 2
    assert caplog.text.count("more than 2 lines within a second: they are dropped") == 1


def test_what_is_let_go_has_no_limit(make: MakeGuest) -> None:
    guest = make(body_limit=1)

    assert feed(new_connection(guest).downstream, b"abc") == [b"abc"]


def test_messages_without_content_count_too(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_GATHERED_MESSAGES", 3)
    guest.on("proxy_on_downstream_data", returns=1)
    connection = new_connection(guest)
    feed(connection.downstream, b"", b"", b"")
    assert connection.closing is None

    feed(connection.downstream, b"")
    assert connection.closing is not None
    assert connection.closing.code == 1009


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_pause_has_an_end(
    make: MakeGuest, step: str, fail_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make(pause_timeout=2.0, fail_open=fail_open)
    guest.on(f"proxy_on_{step}", returns=1)
    connection = new_connection(guest, opened=False)
    assert connection.deadline is None
    reach(connection, step)
    clock = guest.services.clock
    assert connection.deadline == clock.monotonic() + 2_000_000_000

    clock.steady += 1_999_999_999
    run(connection.expire())
    assert connection.closing is None
    assert connection.holds(connection.contexts[0])

    clock.steady += 1
    run(connection.expire())
    assert f"in on_{step}" in caplog.text
    assert "nothing resumed it within 2 s" in caplog.text
    assert (connection.closing is None) is fail_open
    assert connection.deadline is None

    if fail_open:
        assert connection.opened
        way = "upstream" if step == "upstream_data" else "downstream"
        held = [] if step == "new_connection" else [b"one", b"two", b"three"]
        assert taken(direction(connection, way)) == held


def test_what_arrives_begins_a_pause_anew(make: MakeGuest) -> None:
    guest = make(pause_timeout=2.0)
    guest.on("proxy_on_downstream_data", returns=1)
    connection = new_connection(guest)
    feed(connection.downstream, b"one")
    guest.services.clock.steady += 1_500_000_000
    feed(connection.downstream, b"two")

    assert connection.deadline == guest.services.clock.monotonic() + 2_000_000_000
