"""The tables of the specification."""

from __future__ import annotations

import re

import pytest

from wasm_middleware.abi.enums import (
    AbiVersion,
    BufferType,
    Errno,
    LogLevel,
    MapType,
    MetricType,
    Status,
    StreamType,
)
from wasm_middleware.abi.signatures import CALLBACKS, HOST_CALLS, MARKERS, WASI_CALLS, Call

#: Names and numbers of parameters, copied from the specification: a second pair of eyes.
HOST = """
proxy_done 0 proxy_set_effective_context 1 proxy_log 3 proxy_get_log_level 1
proxy_get_current_time_nanoseconds 1 proxy_set_tick_period_milliseconds 1 proxy_set_buffer_bytes 5
proxy_get_buffer_bytes 5 proxy_get_buffer_status 3 proxy_get_header_map_size 2
proxy_get_header_map_pairs 3 proxy_set_header_map_pairs 3 proxy_get_header_map_value 5
proxy_add_header_map_value 5 proxy_replace_header_map_value 5 proxy_remove_header_map_value 3
proxy_continue_stream 1 proxy_close_stream 1 proxy_get_status 3 proxy_send_local_response 8
proxy_http_call 10 proxy_grpc_call 12 proxy_grpc_stream 9 proxy_grpc_send 4 proxy_grpc_cancel 1
proxy_grpc_close 1 proxy_set_shared_data 5 proxy_get_shared_data 5 proxy_register_shared_queue 3
proxy_resolve_shared_queue 5 proxy_enqueue_shared_queue 3 proxy_dequeue_shared_queue 3
proxy_define_metric 4 proxy_record_metric 2 proxy_increment_metric 2 proxy_get_metric 2
proxy_get_property 4 proxy_set_property 4 proxy_call_foreign_function 6 proxy_get_configuration 2
proxy_continue_request 0 proxy_continue_response 0
"""
GUEST = """
_initialize 0 main 2 _start 0 proxy_on_memory_allocate 1 malloc 1 proxy_on_context_create 2
proxy_on_done 1 proxy_on_log 1 proxy_on_delete 1 proxy_on_vm_start 2 proxy_on_configure 2
proxy_on_tick 1 proxy_on_new_connection 1 proxy_on_downstream_data 3
proxy_on_downstream_connection_close 2 proxy_on_upstream_data 3
proxy_on_upstream_connection_close 2 proxy_on_request_headers 3 proxy_on_request_body 3
proxy_on_request_trailers 2 proxy_on_response_headers 3 proxy_on_response_body 3
proxy_on_response_trailers 2 proxy_on_http_call_response 5
proxy_on_grpc_receive_initial_metadata 3 proxy_on_grpc_receive 3
proxy_on_grpc_receive_trailing_metadata 3 proxy_on_grpc_close 3 proxy_on_queue_ready 2
proxy_on_foreign_function 3
"""
EXTENSIONS = {
    "proxy_clear_route_cache",
    "proxy_dispatch_http_call",
    "pthread_equal",
    "emscripten_notify_memory_growth",
    "abort",
}


def counts(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"(\w+) (\d+)", text)}


def test_every_host_call_of_the_specification_is_there_and_no_other() -> None:
    calls = {name: call.signature.index(">") for name, call in HOST_CALLS.items()}

    assert {name: calls[name] for name in calls if not HOST_CALLS[name].extension} == counts(HOST)
    assert {name for name in calls if HOST_CALLS[name].extension} == EXTENSIONS


def test_every_callback_of_the_specification_is_there_and_no_other() -> None:
    calls = {name: call.signature.index(">") for name, call in CALLBACKS.items()}

    assert {name: calls[name] for name in calls if not CALLBACKS[name].extension} == counts(GUEST)


@pytest.mark.parametrize("table", [HOST_CALLS, WASI_CALLS, CALLBACKS])
def test_signatures_are_well_formed(table: dict[str, Call]) -> None:
    for name, call in table.items():
        assert call.name == name

        for signature in call.signatures:
            assert re.fullmatch(r"[iI]*>i?", signature), name


def test_the_only_wide_host_calls_are_those_on_metrics() -> None:
    wide = {name for name, call in HOST_CALLS.items() if "I" in call.signature}

    assert wide == {"proxy_record_metric", "proxy_increment_metric"}


def test_header_callbacks_of_0_1_0_have_two_parameters() -> None:
    for name in ("proxy_on_request_headers", "proxy_on_response_headers"):
        assert CALLBACKS[name].signatures == ("iii>i", "ii>i")


@pytest.mark.parametrize("name", ["proxy_continue_request", "proxy_continue_response"])
def test_continue_calls_of_0_1_0_have_a_result_or_none(name: str) -> None:
    assert HOST_CALLS[name].signatures == (">", ">i")
    assert HOST_CALLS[name].versions == (AbiVersion.V0_1_0,)


def test_tables_can_not_be_changed() -> None:
    with pytest.raises(TypeError):
        HOST_CALLS["x"] = Call("x", ">")  # type: ignore[index]


def test_markers_name_their_versions() -> None:
    assert [str(version) for version in MARKERS.values()] == ["0.1.0", "0.2.0", "0.2.1", "0.2.100"]
    assert MARKERS["proxy_abi_version_0_2_0"] is AbiVersion.V0_2_0


def test_numbers_are_those_of_the_specification() -> None:
    assert {status.name: int(status) for status in Status} == {
        "OK": 0,
        "NOT_FOUND": 1,
        "BAD_ARGUMENT": 2,
        "SERIALIZATION_FAILURE": 3,
        "PARSE_FAILURE": 4,
        "INVALID_MEMORY_ACCESS": 6,
        "EMPTY": 7,
        "CAS_MISMATCH": 8,
        "INTERNAL_FAILURE": 10,
        "BROKEN_CONNECTION": 11,
        "UNIMPLEMENTED": 12,
    }
    assert [list(map(int, numbers)) for numbers in (LogLevel, MapType, BufferType)] == [
        list(range(6)),
        list(range(8)),
        list(range(9)),
    ]
    assert [list(map(int, numbers)) for numbers in (MetricType, StreamType)] == [
        list(range(3)),
        list(range(4)),
    ]
    assert {int(errno) for errno in Errno} == {0, 8, 21, 28, 44, 52, 58, 76}
