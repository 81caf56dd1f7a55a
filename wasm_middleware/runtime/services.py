"""The services of one generation: what its plugins share, and what reaches out of the process."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn

from wasm_middleware.config import Settings
from wasm_middleware.errors import ConfigError
from wasm_middleware.proxy_wasm.ports import (
    ForeignFunction,
    HttpAnswer,
    HttpCall,
    Services,
    SharedData,
    SharedStore,
)
from wasm_middleware.runtime.ending import Step
from wasm_middleware.services.background import Tasks
from wasm_middleware.services.foreign import foreign_functions
from wasm_middleware.services.memory import MemoryQueues, MemorySharedData
from wasm_middleware.services.metrics import MemoryMetrics
from wasm_middleware.services.system import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from wasm_middleware.services.callout import HttpCallouts
    from wasm_middleware.services.grpc import GrpcUpstreams

_LOG = logging.getLogger("wasm_middleware")

_NONE: Final[Mapping[str, ForeignFunction]] = MappingProxyType({})


class ServiceSet:
    """Services made from settings; raises `ConfigError` where a library for them is missing.

    `functions` are the application's foreign functions; `suspends` says whether a host call can
    wait for what is asynchronous (`Engine.suspends`).
    """

    def __init__(
        self,
        settings: Settings,
        functions: Mapping[str, ForeignFunction] = _NONE,
        *,
        suspends: bool = False,
    ) -> None:
        if not suspends:
            _refuse_to_wait(settings, functions)

        shared_data = MemorySharedData()
        self._background = Tasks()
        self._http = _make_http(settings)
        self._grpc = _make_grpc(settings)
        self.services = Services(
            clock=SystemClock(),
            entropy=SystemEntropy(),
            shared_data=shared_data,
            queues=MemoryQueues(),
            metrics=MemoryMetrics(),
            background=self._background,
            http=self._http or _missing_http(settings),
            grpc=self._grpc,
            foreign_functions=foreign_functions(functions, may_wait=suspends),
            waiting_calls=_waiting_calls(shared_data) if suspends else frozenset(),
        )

    def steps(self) -> list[Step]:
        """What ends them: cancels what runs in the background, and closes connections.

        Plugins are to end before.
        """
        steps: list[Step] = [("what runs in the background", self._background.aclose)]

        if self._http is not None:
            steps.append(("the HTTP calls", self._http.aclose))

        if self._grpc is not None:
            steps.append(("the gRPC calls", self._grpc.aclose))

        return steps


def _refuse_to_wait(settings: Settings, functions: Mapping[str, ForeignFunction]) -> None:
    """Raise `ConfigError` for what would have to be waited for."""
    mistakes = [
        settings.source.diagnostic(
            ("scheduling",),
            f"the foreign function {name!r} is asynchronous, and calls into plugins can't wait "
            "for it where they run inline",
            "make it deferred(…), or synchronous",
        )
        for name, function in functions.items()
        if inspect.iscoroutinefunction(function)
    ]

    if mistakes:
        raise ConfigError(mistakes)


def _waiting_calls(shared_data: SharedData | SharedStore) -> frozenset[str]:
    calls = {"proxy_call_foreign_function"}

    if inspect.iscoroutinefunction(shared_data.get):
        calls |= {"proxy_get_shared_data", "proxy_set_shared_data"}

    return frozenset(calls)


class _MissingHttp:
    """Fulfils `ports.HttpClient` where its library is not installed: plugins may call by gRPC."""

    _level = logging.WARNING

    def refusal(self, upstream: str) -> str:
        """Always the same, and the first time for all to see."""
        reason = "httpcore2 is not installed (pip install 'wasm-middleware[http]')"
        _LOG.log(self._level, "a plugin can't call the upstream %r: %s", upstream, reason)
        self._level = logging.DEBUG
        return reason

    def start(
        self, call: HttpCall, answered: Callable[[HttpAnswer], Coroutine[None, None, None]]
    ) -> NoReturn:
        raise KeyError("there is no HTTP client")


def _can_call(settings: Settings) -> bool:
    return bool(settings.upstreams or settings.callouts.allow_hosts)


def _missing_http(settings: Settings) -> _MissingHttp | None:
    return _MissingHttp() if _can_call(settings) else None


def _make_http(settings: Settings) -> HttpCallouts | None:
    """The HTTP client, None without its library. An upstream does not say how it is called: that
    fails the start only where it can't be called at all."""
    if not _can_call(settings):
        return None

    try:
        # Not at the top: it takes longer to import than all the rest, and few need it.
        from wasm_middleware.services.callout import HttpCallouts
    except ImportError as error:
        from wasm_middleware.services import grpc

        if grpc.INSTALLED:
            return None

        key = "upstreams" if settings.upstreams else "callouts"
        message = f"needs {error.name} or, for gRPC, grpcio: neither is installed"
        hint = "pip install 'wasm-middleware[http]', or [grpc]"
        raise ConfigError([settings.source.diagnostic((key,), message, hint)]) from error

    return HttpCallouts(settings)


def _make_grpc(settings: Settings) -> GrpcUpstreams | None:
    if not _can_call(settings):
        return None

    # Not at the top, for the same reason.
    from wasm_middleware.services.grpc import GrpcUpstreams

    return GrpcUpstreams(settings)
