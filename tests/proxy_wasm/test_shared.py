"""Shared data, queues and metrics through host calls."""

from __future__ import annotations

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import Status

from .harness import OUT, Guest, MakeGuest, root_of

COUNTER, GAUGE, HISTOGRAM = range(3)


def put(guest: Guest, key: bytes, value: bytes, cas: int = 0) -> int:
    return guest.ask(None, "proxy_set_shared_data", guest.text(key), guest.text(value), cas)


def get(guest: Guest, key: bytes) -> tuple[bytes, int] | None:
    status = guest.ask(None, "proxy_get_shared_data", guest.text(key), OUT, OUT + 4, OUT + 8)

    if status == Status.NOT_FOUND:
        return None

    assert status == Status.OK
    return guest.got(), guest.u32(OUT + 8)


def test_a_key_that_is_not_there_is_not_found(guest: Guest) -> None:
    assert get(guest, b"key") is None


@pytest.mark.parametrize("value", [b"value", b"", b"\0\xff"])
def test_what_is_stored_is_read_with_a_number(guest: Guest, value: bytes) -> None:
    assert put(guest, b"key", value) == Status.OK
    found = get(guest, b"key")

    assert found is not None
    assert found[0] == value
    assert found[1] != 0


def test_zero_stores_in_any_case(guest: Guest) -> None:
    put(guest, b"key", b"one")

    assert put(guest, b"key", b"two", 0) == Status.OK
    assert (get(guest, b"key") or (b"",))[0] == b"two"


def test_the_number_of_the_value_stores(guest: Guest) -> None:
    put(guest, b"key", b"one")
    found = get(guest, b"key")
    assert found is not None

    assert put(guest, b"key", b"two", found[1]) == Status.OK
    again = get(guest, b"key")
    assert again is not None
    assert again[0] == b"two"
    assert again[1] != found[1]


def test_a_stale_number_is_a_mismatch(guest: Guest) -> None:
    put(guest, b"key", b"one")
    found = get(guest, b"key")
    assert found is not None
    put(guest, b"key", b"two")

    assert put(guest, b"key", b"three", found[1]) == Status.CAS_MISMATCH
    assert (get(guest, b"key") or (b"",))[0] == b"two"


def test_any_number_stores_what_was_not_there(guest: Guest) -> None:
    assert put(guest, b"key", b"one", 12345) == Status.OK


def test_plugins_of_one_vm_id_share(make_guest: MakeGuest) -> None:
    first, second, other = (make_guest(vm_id=name) for name in ("a", "a", "b"))
    put(first, b"key", b"value")

    assert (get(second, b"key") or (b"",))[0] == b"value"
    assert get(other, b"key") is None


def test_full_shared_data_takes_nothing_more(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit that counts there must not count on what isn't."""
    monkeypatch.setattr(limits, "MAX_SHARED_DATA_KEYS", 1)

    assert put(guest, b"one", b"value") == Status.OK
    assert put(guest, b"two", b"value") == Status.CAS_MISMATCH
    assert get(guest, b"two") is None
    assert "proxy_set_shared_data -> CAS_MISMATCH: shared data holds 1 keys already" in caplog.text
    assert put(guest, b"one", b"other") == Status.OK
    assert (get(guest, b"one") or (b"",))[0] == b"other"


def test_a_key_that_is_too_long_is_never_there(guest: Guest) -> None:
    key = b"x" * (limits.MAX_KEY_BYTES + 1)

    assert put(guest, key, b"value") == Status.CAS_MISMATCH
    assert (
        guest.ask(None, "proxy_get_shared_data", guest.text(key), OUT, OUT + 4, OUT + 8)
        == Status.NOT_FOUND
    )


# Queues


def register(guest: Guest, name: bytes) -> int:
    assert (
        guest.ask(root_of(guest), "proxy_register_shared_queue", guest.text(name), OUT) == Status.OK
    )
    return guest.u32()


def resolve(guest: Guest, vm_id: bytes, name: bytes) -> int | None:
    status = guest.ask(None, "proxy_resolve_shared_queue", guest.text(vm_id), guest.text(name), OUT)
    return guest.u32() if status == Status.OK else None


def enqueue(guest: Guest, queue: int, value: bytes) -> int:
    return guest.ask(None, "proxy_enqueue_shared_queue", queue, guest.text(value))


def dequeue(guest: Guest, queue: int) -> int:
    return guest.ask(None, "proxy_dequeue_shared_queue", queue, OUT, OUT + 4)


def test_a_queue_has_one_id_which_is_not_zero(guest: Guest) -> None:
    first = register(guest, b"queue")

    assert first != 0
    assert register(guest, b"queue") == first
    assert register(guest, b"other") != first


def test_queues_are_resolved_by_vm_id(make_guest: MakeGuest) -> None:
    owner, stranger = make_guest(vm_id="a"), make_guest(vm_id="b")
    queue = register(owner, b"queue")

    assert resolve(owner, b"", b"queue") == queue
    assert resolve(stranger, b"a", b"queue") == queue
    assert resolve(stranger, b"", b"queue") is None
    assert resolve(owner, b"", b"unknown") is None


def test_first_in_is_first_out(guest: Guest) -> None:
    queue = register(guest, b"queue")
    statuses = [enqueue(guest, queue, value) for value in (b"one", b"", b"three")]
    got = []

    for _ in range(3):
        assert dequeue(guest, queue) == Status.OK
        got.append(guest.got())

    assert statuses == [Status.OK] * 3
    assert got == [b"one", b"", b"three"]
    assert dequeue(guest, queue) == Status.EMPTY


@pytest.mark.parametrize("queue", [0, 99])
def test_an_unknown_queue_is_not_found(guest: Guest, queue: int) -> None:
    assert enqueue(guest, queue, b"x") == Status.NOT_FOUND
    assert dequeue(guest, queue) == Status.NOT_FOUND


def test_a_full_queue_takes_no_more(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = register(guest, b"queue")
    monkeypatch.setattr(limits, "MAX_QUEUE_BYTES", 100)

    assert enqueue(guest, queue, b"x") == Status.OK
    assert enqueue(guest, queue, b"x" * 40) == Status.NOT_FOUND
    dequeue(guest, queue)
    assert enqueue(guest, queue, b"x") == Status.OK


def test_full_queues_together_take_no_more(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = register(guest, b"one"), register(guest, b"two")
    monkeypatch.setattr(limits, "MAX_QUEUES_BYTES", 200)

    assert enqueue(guest, one, b"x" * 40) == Status.OK
    assert enqueue(guest, two, b"x" * 40) == Status.NOT_FOUND
    assert "proxy_enqueue_shared_queue -> NOT_FOUND: the queues hold 110 of 200" in caplog.text
    dequeue(guest, one)
    assert enqueue(guest, two, b"x" * 40) == Status.OK


def test_there_are_only_so_many_queues(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_QUEUES", 1)
    register(guest, b"one")

    assert enqueue(guest, register(guest, b"two"), b"x") == Status.NOT_FOUND
    assert resolve(guest, b"", b"two") is None


def test_the_name_of_a_queue_has_a_limit(guest: Guest) -> None:
    name = guest.text(b"x" * (limits.MAX_KEY_BYTES + 1))
    statuses = [
        guest.ask(root_of(guest), "proxy_register_shared_queue", name, OUT),
        guest.ask(None, "proxy_resolve_shared_queue", name, guest.text(b""), OUT),
        guest.ask(None, "proxy_resolve_shared_queue", guest.text(b""), name, OUT),
    ]

    assert statuses == [Status.OK, Status.NOT_FOUND, Status.NOT_FOUND]
    assert dequeue(guest, register(guest, b"x" * (limits.MAX_KEY_BYTES + 1))) == Status.NOT_FOUND


# Metrics


def define(guest: Guest, kind: int, name: bytes) -> int:
    assert guest.ask(None, "proxy_define_metric", kind, guest.text(name), OUT) == Status.OK
    return guest.u32()


def value_of(guest: Guest, metric: int) -> int:
    assert guest.ask(None, "proxy_get_metric", metric, OUT) == Status.OK
    return guest.u64()


def test_metrics_have_ids_of_their_own_by_name_and_type(guest: Guest) -> None:
    ids = [
        define(guest, kind, name)
        for kind in (COUNTER, GAUGE, HISTOGRAM)
        for name in (b"one", b"two")
    ]

    assert len({0, *ids}) == 7
    assert define(guest, COUNTER, b"one") == ids[0]


def test_metrics_of_plugins_do_not_meet(make_guest: MakeGuest) -> None:
    first, second = make_guest(name="a"), make_guest(name="b")

    assert define(first, COUNTER, b"one") != define(second, COUNTER, b"one")


@pytest.mark.parametrize("kind", [3, 0xFFFF_FFFF])
def test_an_unknown_type_is_a_bad_argument(guest: Guest, kind: int) -> None:
    status = guest.ask(None, "proxy_define_metric", kind, guest.text(b"one"), OUT)

    assert status == Status.BAD_ARGUMENT


def test_a_counter_adds_what_is_recorded_and_incremented(guest: Guest) -> None:
    metric = define(guest, COUNTER, b"one")
    statuses = [
        guest.ask(None, "proxy_record_metric", metric, 5),
        guest.ask(None, "proxy_increment_metric", metric, 2),
        guest.ask(None, "proxy_increment_metric", metric, 0),
        guest.ask(None, "proxy_increment_metric", metric, -1),
    ]

    # Not down, though: and the Go SDK panics on the specification's BadArgument.
    assert statuses == [Status.OK] * 4
    assert value_of(guest, metric) == 7


def test_a_gauge_is_set_and_moved_both_ways(guest: Guest) -> None:
    metric = define(guest, GAUGE, b"one")
    guest.ask(None, "proxy_record_metric", metric, 5)
    guest.ask(None, "proxy_record_metric", metric, 3)
    guest.ask(None, "proxy_increment_metric", metric, 10)
    guest.ask(None, "proxy_increment_metric", metric, -4)

    assert value_of(guest, metric) == 9


def test_recorded_values_are_unsigned_and_wide(guest: Guest) -> None:
    metric = define(guest, GAUGE, b"one")
    guest.ask(None, "proxy_record_metric", metric, (1 << 64) - 1)

    assert value_of(guest, metric) == (1 << 64) - 1


def test_a_histogram_takes_values_and_gives_none(guest: Guest) -> None:
    metric = define(guest, HISTOGRAM, b"one")
    statuses = [
        guest.ask(None, "proxy_record_metric", metric, 5),
        guest.ask(None, "proxy_increment_metric", metric, 1),
        guest.ask(None, "proxy_get_metric", metric, OUT),
    ]

    assert statuses == [Status.OK, Status.BAD_ARGUMENT, Status.OK]
    assert value_of(guest, metric) == 0


@pytest.mark.parametrize("metric", [0, 99, 0xFFFF_FFFF])
def test_an_unknown_metric_is_not_found(guest: Guest, metric: int) -> None:
    statuses = [
        guest.ask(None, "proxy_record_metric", metric, 1),
        guest.ask(None, "proxy_increment_metric", metric, 1),
        guest.ask(None, "proxy_get_metric", metric, OUT),
    ]

    assert statuses == [Status.NOT_FOUND] * 3


def test_metrics_have_a_cap_by_plugin(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_guest(name="a"), make_guest(name="b")
    monkeypatch.setattr(limits, "MAX_METRICS_PER_PLUGIN", 1)
    define(first, COUNTER, b"one")
    define(first, COUNTER, b"two")
    define(second, COUNTER, b"one")

    samples = first.services.metrics.samples()
    assert [(sample.plugin, sample.name) for sample in samples] == [("a", "one"), ("b", "one")]


def test_the_name_of_a_metric_has_a_limit(guest: Guest) -> None:
    name = b"x" * (limits.MAX_METRIC_NAME_BYTES + 1)
    define(guest, COUNTER, name)
    define(guest, COUNTER, name[:-1])

    samples = guest.services.metrics.samples()
    assert [sample.name for sample in samples] == [name[:-1].decode()]


@pytest.mark.parametrize("kind", [COUNTER, GAUGE, HISTOGRAM])
def test_a_metric_that_is_not_kept_takes_what_it_is_given(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """A guest that has it goes on: both SDKs panic where it can't be defined."""
    monkeypatch.setattr(limits, "MAX_METRICS_PER_PLUGIN", 0)
    metric = define(guest, kind, b"one")
    statuses = [
        guest.ask(None, "proxy_record_metric", metric, 5),
        guest.ask(None, "proxy_increment_metric", metric, 1),
    ]

    assert statuses == [Status.OK] * 2
    assert value_of(guest, metric) == 0
