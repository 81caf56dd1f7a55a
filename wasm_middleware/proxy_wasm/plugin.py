"""What the core must know of a plugin: the part of its settings that its semantics depend on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from wasm_middleware import limits
from wasm_middleware.abi.enums import LogLevel
from wasm_middleware.proxy_wasm.lograte import LogRate
from wasm_middleware.proxy_wasm.underway import UnderWay

REQUEST_HEADERS = "on_request_headers"
REQUEST_BODY = "on_request_body"
RESPONSE_HEADERS = "on_response_headers"
RESPONSE_BODY = "on_response_body"
LOG = "on_log"
PHASES = (REQUEST_HEADERS, REQUEST_BODY, RESPONSE_HEADERS, RESPONSE_BODY, LOG)

#: Python's level for each of the ABI's; TRACE has none of its own there.
PYTHON_LEVELS = {
    LogLevel.TRACE: 5,
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
    LogLevel.CRITICAL: logging.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin, as its VMs and streams see it. Sizes are bytes, times seconds."""

    name: str
    logger: logging.Logger
    #: The callbacks that may run, less those that its module does not export.
    phases: frozenset[str] = frozenset(PHASES)
    root_id: str = ""
    vm_id: str = ""
    vm_config: bytes = b""
    config: bytes = b""
    log_level: LogLevel = LogLevel.INFO
    #: What all its instances may write together.
    log_rate: LogRate = field(default_factory=LogRate)
    #: What the calls of all its instances hold.
    under_way: UnderWay = field(default_factory=UnderWay)
    timeout: float | None = limits.DEFAULT_TIMEOUT
    #: Of all calls in one request, by the clock on the wall.
    request_timeout: float | None = None
    pause_timeout: float = limits.DEFAULT_PAUSE_TIMEOUT
    body_limit: int = limits.DEFAULT_BODY_LIMIT
    fail_open: bool = False
    allow_on_headers_stop_iteration: bool = False
    #: Whether a response body may come out changed: the module imports `proxy_set_buffer_bytes`.
    changes_bodies: bool = True
    #: 0.1.0 answers a missing header with OK and an empty value.
    missing_header_is_empty: bool = False
    #: It handles connections, and no HTTP requests: of the phases it has `on_log` alone.
    network: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    #: Names of host calls and callbacks; None allows the whole ABI.
    capabilities: frozenset[str] | None = None

    def allows(self, name: str) -> bool:
        return self.capabilities is None or name in self.capabilities
