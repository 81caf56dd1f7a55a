"""WASI: what there is, and that nothing of the system is."""

from __future__ import annotations

import struct

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import Errno, LogLevel
from wasm_middleware.abi.signatures import WASI_CALLS

from .harness import LOGGER, OUT, FakeClock, Guest, MakeGuest, call

#: What each call answers that does nothing (proxy-wasm-cpp-host `exports.cc`).
ANSWERS = {
    "args_get": Errno.SUCCESS,
    "fd_advise": Errno.NOSYS,
    "fd_allocate": Errno.NOSYS,
    "fd_close": Errno.SUCCESS,
    "fd_datasync": Errno.NOSYS,
    "fd_fdstat_set_flags": Errno.NOSYS,
    "fd_fdstat_set_rights": Errno.NOSYS,
    "fd_filestat_get": Errno.BADF,
    "fd_filestat_set_size": Errno.NOSYS,
    "fd_filestat_set_times": Errno.NOSYS,
    "fd_pread": Errno.NOSYS,
    "fd_prestat_dir_name": Errno.NOSYS,
    "fd_prestat_get": Errno.BADF,
    "fd_pwrite": Errno.NOSYS,
    "fd_read": Errno.NOSYS,
    "fd_readdir": Errno.NOSYS,
    "fd_renumber": Errno.NOSYS,
    "fd_seek": Errno.SUCCESS,
    "fd_sync": Errno.NOSYS,
    "fd_tell": Errno.NOSYS,
    "path_create_directory": Errno.NOSYS,
    "path_filestat_get": Errno.NOTSUP,
    "path_filestat_set_times": Errno.NOSYS,
    "path_link": Errno.NOSYS,
    "path_open": Errno.NOENT,
    "path_readlink": Errno.NOSYS,
    "path_remove_directory": Errno.NOSYS,
    "path_rename": Errno.NOSYS,
    "path_symlink": Errno.NOSYS,
    "path_unlink_file": Errno.NOSYS,
    "proc_raise": Errno.NOSYS,
    "sched_yield": Errno.SUCCESS,
    "sock_accept": Errno.NOTSUP,
    "sock_recv": Errno.NOTSUP,
    "sock_send": Errno.NOTSUP,
    "sock_shutdown": Errno.NOTSUP,
}
ENVIRONMENT = (("REGION", "eu"), ("EMPTY", ""), ("NAME", "naïve"), ("RAW", "\udcff"))
WRITTEN = (b"REGION=eu\0", b"EMPTY=\0", "NAME=naïve\0".encode(), b"RAW=\xff\0")


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_plugin_has_not_answers_an_errno(guest: Guest, name: str) -> None:
    count = WASI_CALLS[name].signature.index(">")

    assert guest.ask(None, name, *[OUT] * count) == ANSWERS[name]


def test_the_only_other_calls_are_those_that_do_something() -> None:
    assert set(WASI_CALLS) - set(ANSWERS) == {
        "args_sizes_get",
        "clock_res_get",
        "clock_time_get",
        "environ_get",
        "environ_sizes_get",
        "fd_fdstat_get",
        "fd_write",
        "poll_oneoff",
        "proc_exit",
        "random_get",
    }


# The environment


def test_the_environment_is_what_the_settings_give(
    make_guest: MakeGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    guest = make_guest(environment=ENVIRONMENT)
    array, buffer = 256, 512

    assert guest.ask(None, "environ_sizes_get", OUT, OUT + 4) == Errno.SUCCESS
    assert (guest.u32(), guest.u32(OUT + 4)) == (len(WRITTEN), len(b"".join(WRITTEN)))
    assert guest.ask(None, "environ_get", array, buffer) == Errno.SUCCESS
    assert guest.memory.read(buffer, len(b"".join(WRITTEN))) == b"".join(WRITTEN)
    starts = struct.unpack("<4I", guest.memory.read(array, 16))
    assert [
        guest.memory.read(start, len(entry)) for start, entry in zip(starts, WRITTEN, strict=True)
    ] == list(WRITTEN)


def test_there_is_no_environment_by_default(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the host")
    guest.memory.write(OUT, b"\xff" * 8)
    guest.ask(None, "environ_sizes_get", OUT, OUT + 4)

    assert (guest.u32(), guest.u32(OUT + 4)) == (0, 0)


def test_there_are_no_arguments(guest: Guest) -> None:
    guest.memory.write(OUT, b"\xff" * 8)

    assert guest.ask(None, "args_sizes_get", OUT, OUT + 4) == Errno.SUCCESS
    assert (guest.u32(), guest.u32(OUT + 4)) == (0, 0)


# Time and chance


def test_the_wall_clock_and_the_steady_one_come_from_the_port(guest: Guest) -> None:
    clock = guest.services.clock
    assert isinstance(clock, FakeClock)

    assert guest.ask(None, "clock_time_get", 0, 1, OUT) == Errno.SUCCESS
    assert guest.u64() == clock.wall
    assert guest.ask(None, "clock_time_get", 1, 1 << 40, OUT) == Errno.SUCCESS
    assert guest.u64() == clock.steady


@pytest.mark.parametrize("clock", [2, 3, 0xFFFF_FFFF])
@pytest.mark.parametrize("name", ["clock_time_get", "clock_res_get"])
def test_other_clocks_are_not_supported(guest: Guest, name: str, clock: int) -> None:
    arguments = [clock, 0, OUT] if name == "clock_time_get" else [clock, OUT]

    assert guest.ask(None, name, *arguments) == Errno.NOTSUP


@pytest.mark.parametrize("clock", [0, 1])
def test_clocks_count_nanoseconds(guest: Guest, clock: int) -> None:
    assert guest.ask(None, "clock_res_get", clock, OUT) == Errno.SUCCESS
    assert guest.u64() == 1


def test_the_time_of_the_abi_is_the_wall_clock(guest: Guest) -> None:
    guest.ask(None, "proxy_get_current_time_nanoseconds", OUT)

    assert guest.u64() == guest.services.clock.now()


def test_random_bytes_come_from_the_port(guest: Guest) -> None:
    assert guest.ask(None, "random_get", OUT, 8) == Errno.SUCCESS
    assert guest.memory.read(OUT, 8) == bytes(range(1, 9))


def test_random_bytes_have_a_cap(guest: Guest) -> None:
    address, _ = guest.text(bytes(limits.MAX_RANDOM_BYTES + 8))

    assert guest.ask(None, "random_get", address, limits.MAX_RANDOM_BYTES + 1) == Errno.INVAL
    assert guest.memory.read(address, 1) == b"\0"
    assert guest.ask(None, "random_get", address, limits.MAX_RANDOM_BYTES) == Errno.SUCCESS


# File descriptors


@pytest.mark.parametrize("descriptor", [1, 2])
def test_standard_output_may_be_written_to(guest: Guest, descriptor: int) -> None:
    guest.memory.write(OUT, b"\xff" * 24)

    assert guest.ask(None, "fd_fdstat_get", descriptor, OUT) == Errno.SUCCESS
    assert guest.memory.read(OUT, 24) == bytes(8) + b"\x40" + bytes(15)


@pytest.mark.parametrize("descriptor", [0, 3, 0xFFFF_FFFF])
def test_there_are_no_other_descriptors(guest: Guest, descriptor: int) -> None:
    assert guest.ask(None, "fd_fdstat_get", descriptor, OUT) == Errno.BADF
    assert guest.ask(None, "fd_write", descriptor, OUT, 0, OUT) == Errno.BADF


def test_polling_ends_at_once_without_events(guest: Guest) -> None:
    guest.memory.write_u32(OUT, 7)

    assert guest.ask(None, "poll_oneoff", 0, 0, 3, OUT) == Errno.SUCCESS
    assert guest.u32() == 0


def write(guest: Guest, descriptor: int, *texts: bytes) -> int:
    """`fd_write` with a vector for each text; the status."""
    words = [word for text in texts for word in guest.text(text)]
    vectors, _ = guest.text(struct.pack(f"<{len(words)}I", *words))
    return guest.ask(None, "fd_write", descriptor, vectors, len(texts), OUT)


@pytest.mark.parametrize(("descriptor", "level"), [(1, "INFO"), (2, "ERROR")])
def test_what_is_printed_is_logged(
    guest: Guest, caplog: pytest.LogCaptureFixture, descriptor: int, level: str
) -> None:
    with caplog.at_level(1, LOGGER.name):
        assert write(guest, descriptor, b"hello ", b"", b"world\n") == Errno.SUCCESS

    assert [(record.levelname, record.message) for record in caplog.records] == [
        (level, "hello world")
    ]
    assert guest.u32() == 12


def test_pieces_of_a_line_are_joined_within_a_call(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    pieces = [
        guest.text(struct.pack("<2I", *guest.text(text)))[0] for text in (b"a", b"b\nc", b"d")
    ]
    guest.on("proxy_on_foreign_function", *(call("fd_write", 1, at, 1, OUT) for at in pieces))

    with caplog.at_level(1, LOGGER.name):
        guest.enter(None, "proxy_on_foreign_function")

    assert [record.message for record in caplog.records] == ["ab", "cd"]


def test_output_and_errors_are_not_mixed(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    pieces = [guest.text(struct.pack("<2I", *guest.text(text)))[0] for text in (b"out", b"error")]
    guest.on(
        "proxy_on_foreign_function",
        *(call("fd_write", 1 + index, at, 1, OUT) for index, at in enumerate(pieces)),
    )

    with caplog.at_level(1, LOGGER.name):
        guest.enter(None, "proxy_on_foreign_function")

    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "out"),
        ("ERROR", "error"),
    ]


def test_the_log_level_holds_for_what_is_printed(
    make_guest: MakeGuest, caplog: pytest.LogCaptureFixture
) -> None:
    guest = make_guest(log_level=LogLevel.WARN)

    with caplog.at_level(1, LOGGER.name):
        write(guest, 1, b"quiet\n")
        write(guest, 2, b"loud\n")

    assert [record.message for record in caplog.records] == ["loud"]


def test_of_very_much_output_a_part_is_written(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    most = limits.MAX_LOG_BYTES

    with caplog.at_level(1, LOGGER.name):
        assert write(guest, 1, b"x" * (most - 1), b"yz", b"more") == Errno.SUCCESS

    assert guest.u32() == most
    assert "".join(record.message for record in caplog.records) == "x" * (most - 1) + "y"


def test_too_many_vectors_are_invalid(guest: Guest) -> None:
    assert guest.ask(None, "fd_write", 1, 0, 1025, OUT) == Errno.INVAL


def test_nothing_written_logs_nothing(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(1, LOGGER.name):
        assert write(guest, 1, b"") == Errno.SUCCESS

    assert caplog.records == []
