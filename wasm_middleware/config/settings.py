"""The settings: what a configuration file means, checked, complete and frozen.

Each field's type says what the program gets, its kind what may be written. The text below each
field is its documentation: `wasm-middleware schema` hands it to editors.

`load_settings` makes these; a model made by hand has its defaults but not those of a `defaults`
key, nor absolute paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from wasm_middleware.config import addresses, fields, guest, patterns
from wasm_middleware.config.addresses import Address
from wasm_middleware.config.problems import Mistake, Problem
from wasm_middleware.config.source import Source
from wasm_middleware.config.units import format_duration, format_size
from wasm_middleware.errors import Diagnostic
from wasm_middleware.limits import (
    DEFAULT_BODY_LIMIT,
    DEFAULT_CALL_RESPONSE_BYTES,
    DEFAULT_CALL_TIMEOUT,
    DEFAULT_CALLS_IN_FLIGHT,
    DEFAULT_INSTANCES,
    DEFAULT_LOG_RATE,
    DEFAULT_MEMORY_LIMIT,
    DEFAULT_PAUSE_TIMEOUT,
    DEFAULT_TIMEOUT,
    KIB,
    MAX_CALLS_IN_FLIGHT,
    MAX_INSTANCES,
    MAX_LOG_RATE,
    MAX_MEMORY_LIMIT,
)

__all__ = [
    "LOG_LEVELS",
    "PHASES",
    "CalloutSettings",
    "FailurePolicy",
    "Instances",
    "LogLevel",
    "Phase",
    "PluginDefaults",
    "PluginSettings",
    "RoutePlugin",
    "RouteSettings",
    "Settings",
    "UpstreamSettings",
]

Phase = Literal[
    "on_request_headers", "on_request_body", "on_response_headers", "on_response_body", "on_log"
]
FailurePolicy = Literal["fail_closed", "fail_open"]
LogLevel = Literal["trace", "debug", "info", "warn", "error", "critical"]

#: In the order in which a request meets them.
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
#: From the least to the most severe.
LOG_LEVELS: Final[tuple[LogLevel, ...]] = get_args(LogLevel)

# A WebAssembly memory is made of pages of this size, and has one of them at least.
_PAGE: Final = 64 * KIB
_INT32: Final = 2**31

_Flag = Annotated[bool, fields.flag()]
_Opaque = Annotated[bytes, guest.opaque()]
_LogLevel = Annotated[LogLevel, fields.choice(*LOG_LEVELS)]
_Text = Annotated[str, fields.text()]
_PluginName = Annotated[
    str,
    fields.text(
        "a plugin name", r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "use letters, digits and _ . -"
    ),
]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


class Instances(_Frozen):
    """How many instances of a plugin there are."""

    min: Annotated[int, fields.whole(1, 64)] = 1
    """Instances that are started with the service, and always there."""

    max: Annotated[int, fields.whole(1, MAX_INSTANCES)] = DEFAULT_INSTANCES
    """Instances that there may be while calls into the others are suspended; `min` if that is more.
    """

    @model_validator(mode="after")
    def _check_order(self) -> Instances:
        if self.max < self.min and "max" in self.model_fields_set:
            message = f"{{seen}} is less than min, which is {self.min}"
            raise Mistake(Problem(message, "", self.max, below=("max",)))

        return self

    @property
    def most(self) -> int:
        """The most that there may be."""
        return self.max if self.max > self.min else self.min


class PluginDefaults(_Frozen):
    """What a plugin may leave out; also the `defaults` for all of them."""

    mandatory: _Flag = False
    """No decorator can exempt an endpoint from this plugin."""

    phase: Annotated[tuple[Phase, ...], fields.some_of(*PHASES)] = PHASES
    """The phase, or a list of the phases, in which the plugin runs. Default: all five."""

    priority: Annotated[int, fields.whole(-_INT32, _INT32 - 1)] = 0
    """High runs first on requests and last on responses; equal ones keep the file's order."""

    config: _Opaque = Field(default=b"", repr=False)
    """The plugin's own configuration: text is given as it is, anything else as JSON."""

    compile: Annotated[
        Literal["in_process", "isolated"], fields.choice("in_process", "isolated")
    ] = "in_process"
    """Where the module is compiled: `isolated` is a process of its own, with limits of time and
    memory, for a module that nobody vouches for."""

    memory_limit: Annotated[int, fields.size(_PAGE, MAX_MEMORY_LIMIT)] = Field(
        default=DEFAULT_MEMORY_LIMIT,
        json_schema_extra={"default": format_size(DEFAULT_MEMORY_LIMIT)},
    )
    """The most memory that one instance may have. MB means MiB."""

    timeout: Annotated[float | None, fields.duration(none=True)] = Field(
        default=DEFAULT_TIMEOUT, json_schema_extra={"default": format_duration(DEFAULT_TIMEOUT)}
    )
    """The longest that one call may run; `none` for no limit."""

    request_timeout: Annotated[float | None, fields.duration(none=True)] = Field(
        default=None, json_schema_extra={"default": "none"}
    )
    """The longest that all calls of a request may take together, waiting included; by the clock."""

    pause_timeout: Annotated[float, fields.duration()] = Field(
        default=DEFAULT_PAUSE_TIMEOUT,
        json_schema_extra={"default": format_duration(DEFAULT_PAUSE_TIMEOUT)},
    )
    """The longest that the plugin may pause a request."""

    body_limit: Annotated[int, fields.size(1, MAX_MEMORY_LIMIT)] = Field(
        default=DEFAULT_BODY_LIMIT, json_schema_extra={"default": format_size(DEFAULT_BODY_LIMIT)}
    )
    """The most of a body that is kept while the plugin pauses it."""

    bodies: Annotated[bool | None, fields.flag(auto=True)] = Field(
        default=None, json_schema_extra={"default": "auto"}
    )
    """Whether the plugin sees bodies; `auto` concludes it from the module."""

    type: Annotated[Literal["http", "network"], fields.choice("http", "network")] = "http"
    """What the plugin handles: HTTP requests, or the connections of websockets."""

    isolation: Annotated[Literal["shared"], fields.choice("shared", key="isolation")] = "shared"
    """Whether requests share an instance."""

    ticks: Annotated[Literal["singleton", "each"], fields.choice("singleton", "each")] = "singleton"
    """Which instances get ticks: one of a process, or each as in Envoy."""

    allow_on_headers_stop_iteration: _Flag = False
    """A pause in a header phase lets the body callbacks run all the same."""

    log_level: _LogLevel = "info"
    """The least severe messages that are logged. Default: the file's own `log_level`."""

    log_rate: Annotated[int, fields.whole(1, MAX_LOG_RATE)] = DEFAULT_LOG_RATE
    """The most lines that are logged within a second; more are dropped, and counted."""

    failure_policy: Annotated[FailurePolicy, fields.choice("fail_closed", "fail_open")] = (
        "fail_closed"
    )
    """What a failing plugin means: an error for the client, or going on without the plugin."""

    instances: Instances = Instances()
    """How many instances of the plugin there are."""

    environment: Annotated[tuple[tuple[str, str], ...], guest.environment()] = Field(
        default=(), repr=False, json_schema_extra={"default": {}}
    )
    """The environment variables that the plugin sees; it sees no others."""

    allowed_capabilities: Annotated[frozenset[str] | None, guest.capabilities()] = Field(
        default=None
    )
    """The host calls that the plugin may make. Default: all."""

    root_id: _Text = ""
    """Which of the module's root contexts to use, where it has several."""

    vm_id: _Text = ""
    """Plugins of one vm_id share data and queues."""

    vm_config: _Opaque = Field(default=b"", repr=False)
    """Given to the module when it starts, as `config` is when the plugin is configured."""


class _PluginIdentity(_Frozen):
    name: _PluginName
    """The name that routes, decorators, logs and metrics use."""

    path: Annotated[Path, fields.file_path()]
    """The module, a .wasm file. Relative paths are relative to the configuration file."""

    sha256: Annotated[
        str | None, fields.text("64 hexadecimal digits", fields.DIGEST_PATTERN, "see sha256sum")
    ] = None
    """The file's SHA-256; another file is refused."""


class PluginSettings(PluginDefaults, _PluginIdentity):
    """One plugin."""


class RoutePlugin(_Frozen):
    """A plugin on a route."""

    name: _PluginName
    """The plugin's name."""

    config: Annotated[bytes | None, guest.opaque()] = Field(default=None, repr=False)
    """Replaces the plugin's `config` on this route."""


class _As:
    """Checks what is written as a narrower type: None is a default, `routes:` a mistake."""

    def __init__(self, written: object) -> None:
        self._written = written

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return handler.generate_schema(self._written)


class _OrText:
    """Lets a mapping be written as its one important value alone, which is text."""

    def __init__(self, key: str) -> None:
        self._key = key

    def expand(self, value: object) -> object:
        return {self._key: value} if isinstance(value, str) else value

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(schema)]}


_NAME = _OrText("name")
_RoutePlugin = Annotated[RoutePlugin, BeforeValidator(_NAME.expand), _NAME]


class RouteSettings(_Frozen):
    """Which plugins run on which requests; the first route that matches wins."""

    path: Annotated[str, patterns.route_path()]
    """Exact, with {name} for a segment, or with a trailing /* for the path and all below."""

    id: Annotated[str, fields.text("a name", ".+")] = Field(
        default_factory=lambda known: known.get("path", "")
    )
    """The route's unique name. Default: its path."""

    methods: Annotated[frozenset[str] | None, patterns.methods()] = Field(default=None)
    """The HTTP methods; GET implies HEAD. Default: all."""

    plugins: tuple[_RoutePlugin, ...] = ()
    """The plugins, by name or as a mapping of name and config."""

    upstream: _Text = ""
    """Taken for other hosts' files: in an ASGI application, the application is the upstream."""


class UpstreamSettings(_Frozen):
    """A server that plugins may call."""

    url: Annotated[Address, addresses.address()]
    """http://host:port, https://host:port or unix:/path/to/socket, without a path of its own."""

    timeout: Annotated[float, fields.duration()] = Field(
        default=DEFAULT_CALL_TIMEOUT,
        json_schema_extra={"default": format_duration(DEFAULT_CALL_TIMEOUT)},
    )
    """The longest that a call may take, where the plugin does not say."""

    max_in_flight: Annotated[int, fields.whole(1, MAX_CALLS_IN_FLIGHT)] = DEFAULT_CALLS_IN_FLIGHT
    """Calls at a time; more of them are answered 503 at once."""

    response_limit: Annotated[int, fields.size(1, MAX_MEMORY_LIMIT)] = Field(
        default=DEFAULT_CALL_RESPONSE_BYTES,
        json_schema_extra={"default": format_size(DEFAULT_CALL_RESPONSE_BYTES)},
    )
    """The longest body of an answer."""

    ca_file: Annotated[Path | None, fields.file_path()] = None
    """The CAs to trust in place of the system's: a file of certificates in PEM form."""


_URL = _OrText("url")
_Upstream = Annotated[UpstreamSettings, BeforeValidator(_URL.expand), _URL]


def _as_pairs(
    upstreams: Mapping[str, UpstreamSettings],
) -> tuple[tuple[str, UpstreamSettings], ...]:
    return tuple(upstreams.items())


class CalloutSettings(_Frozen):
    """Which servers plugins may call besides the upstreams."""

    allow_hosts: Annotated[frozenset[Address], addresses.host_ports()] = Field(
        default=frozenset(), json_schema_extra={"default": []}
    )
    """What plugins may name as host:port, with no upstream: https at port 443, http elsewhere."""


class Settings(_Frozen):
    """A whole configuration."""

    engine: Annotated[
        Literal["wasmtime", "wasmer"], fields.choice("wasmtime", "wasmer", key="engine")
    ] = "wasmtime"
    """What runs the modules. There is wasmer for CPython 3.10 and older alone."""

    plugins: tuple[PluginSettings, ...] = ()
    """The plugins, in the order that decides between equal priorities."""

    routes: Annotated[tuple[RouteSettings, ...] | None, _As(tuple[RouteSettings, ...])] = None
    """Which plugins run where. Without this key, every plugin is on every request."""

    upstreams: Annotated[
        tuple[tuple[str, UpstreamSettings], ...],
        _As(dict[str, _Upstream]),
        AfterValidator(_as_pairs),
    ] = Field(default=(), json_schema_extra={"default": {}})
    """The servers that plugins may call, by name: a URL each, or a mapping."""

    callouts: CalloutSettings = CalloutSettings()
    """What plugins may call besides."""

    shared_data: Annotated[Literal["memory://"], fields.choice("memory://", key="shared_data")] = (
        "memory://"
    )
    """Where shared data and queues are kept."""

    log_level: _LogLevel = "info"
    """The level of the plugins without their own."""

    scheduling: Annotated[
        Literal["sliced", "inline"], fields.choice("sliced", "inline", key="scheduling")
    ] = "sliced"
    """How calls into plugins share the event loop: by turns of a millisecond, or one after another
    from beginning to end."""

    reload: Annotated[Literal["off"], fields.choice("off", key="reload")] = "off"
    """Whether changed files are loaded while the service runs."""

    defaults: PluginDefaults = PluginDefaults()
    """Fields for the plugins that don't have them."""

    _source: Source = PrivateAttr(default_factory=Source)
    _warnings: tuple[Diagnostic, ...] = PrivateAttr(())

    @property
    def source(self) -> Source:
        """Where each value stands, to report what is found later."""
        return self._source

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is odd in the file but does no harm."""
        return self._warnings
