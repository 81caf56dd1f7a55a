"""The numbers of the ABI (spec v0.2.1, "Types"; names as there)."""

from __future__ import annotations

import enum


class AbiVersion(enum.Enum):
    """An ABI version; the value is the marker that a module exports to declare it."""

    V0_1_0 = "proxy_abi_version_0_1_0"
    V0_2_0 = "proxy_abi_version_0_2_0"
    V0_2_1 = "proxy_abi_version_0_2_1"
    #: Exported by Higress's Go SDK; the calls are those of 0.2.1.
    V0_2_100 = "proxy_abi_version_0_2_100"

    def __str__(self) -> str:
        return self.value.removeprefix("proxy_abi_version_").replace("_", ".")


class Status(enum.IntEnum):
    """What a host call answers (`proxy_status_t`)."""

    OK = 0
    NOT_FOUND = 1
    BAD_ARGUMENT = 2
    SERIALIZATION_FAILURE = 3
    PARSE_FAILURE = 4
    INVALID_MEMORY_ACCESS = 6
    EMPTY = 7
    CAS_MISMATCH = 8
    INTERNAL_FAILURE = 10
    #: Only ever told by `proxy_get_status`, of a call without an answer (Envoy).
    BROKEN_CONNECTION = 11
    UNIMPLEMENTED = 12


class Errno(enum.IntEnum):
    """What a WASI preview1 call answers."""

    SUCCESS = 0
    BADF = 8
    FAULT = 21
    INVAL = 28
    NOENT = 44
    NOSYS = 52
    NOTSUP = 58
    NOTCAPABLE = 76


def answer_name(answer: Status | Errno) -> str:
    """What people call it: `NOT_FOUND`, `EFAULT`."""
    return f"E{answer.name}" if isinstance(answer, Errno) else answer.name


class LogLevel(enum.IntEnum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    CRITICAL = 5


class Action(enum.IntEnum):
    """What a stream callback answers.

    0 and 1 are the specification's. The rest are proxy-wasm-cpp-sdk's `FilterHeadersStatus` and
    `FilterDataStatus`, which share numbers: read them with the callback in mind.
    """

    CONTINUE = 0
    PAUSE = 1


class HeadersStatus(enum.IntEnum):
    CONTINUE = 0
    STOP_ITERATION = 1
    CONTINUE_AND_END_STREAM = 2
    STOP_ALL_ITERATION_AND_BUFFER = 3
    STOP_ALL_ITERATION_AND_WATERMARK = 4


class DataStatus(enum.IntEnum):
    CONTINUE = 0
    STOP_ITERATION_AND_BUFFER = 1
    STOP_ITERATION_AND_WATERMARK = 2
    STOP_ITERATION_NO_BUFFER = 3


class MapType(enum.IntEnum):
    HTTP_REQUEST_HEADERS = 0
    HTTP_REQUEST_TRAILERS = 1
    HTTP_RESPONSE_HEADERS = 2
    HTTP_RESPONSE_TRAILERS = 3
    GRPC_CALL_INITIAL_METADATA = 4
    GRPC_CALL_TRAILING_METADATA = 5
    HTTP_CALL_RESPONSE_HEADERS = 6
    HTTP_CALL_RESPONSE_TRAILERS = 7


class BufferType(enum.IntEnum):
    HTTP_REQUEST_BODY = 0
    HTTP_RESPONSE_BODY = 1
    DOWNSTREAM_DATA = 2
    UPSTREAM_DATA = 3
    HTTP_CALL_RESPONSE_BODY = 4
    GRPC_CALL_MESSAGE = 5
    VM_CONFIGURATION = 6
    PLUGIN_CONFIGURATION = 7
    FOREIGN_FUNCTION_ARGUMENTS = 8


class StreamType(enum.IntEnum):
    HTTP_REQUEST = 0
    HTTP_RESPONSE = 1
    DOWNSTREAM = 2
    UPSTREAM = 3


class MetricType(enum.IntEnum):
    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class PeerType(enum.IntEnum):
    UNKNOWN = 0
    LOCAL = 1
    REMOTE = 2
