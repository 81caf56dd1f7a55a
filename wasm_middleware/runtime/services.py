"""The services of one generation: what its plugins share, and what reaches out of the process."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from wasm_middleware.config import Settings
from wasm_middleware.errors import ConfigError
from wasm_middleware.proxy_wasm.ports import ForeignFunction, Services
from wasm_middleware.services.background import Tasks
from wasm_middleware.services.foreign import foreign_functions
from wasm_middleware.services.memory import MemoryQueues, MemorySharedData
from wasm_middleware.services.metrics import MemoryMetrics
from wasm_middleware.services.system import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from wasm_middleware.services.callout import HttpCallouts
    from wasm_middleware.services.grpc import GrpcUpstreams

_NONE: Final[Mapping[str, ForeignFunction]] = MappingProxyType({})


class ServiceSet:
    """Services made from settings; raises `ConfigError` where a library for them is missing.

    `functions` are the application's foreign functions.
    """

    def __init__(
        self, settings: Settings, functions: Mapping[str, ForeignFunction] = _NONE
    ) -> None:
        self._background = Tasks()
        self._http = _make_http(settings)
        self._grpc = _make_grpc(settings)
        self.services = Services(
            clock=SystemClock(),
            entropy=SystemEntropy(),
            shared_data=MemorySharedData(),
            queues=MemoryQueues(),
            metrics=MemoryMetrics(),
            background=self._background,
            http=self._http,
            grpc=self._grpc,
            foreign_functions=foreign_functions(functions),
        )

    async def aclose(self) -> None:
        """Cancel what runs in the background, and close connections. Plugins are to end before."""
        await self._background.aclose()

        if self._http is not None:
            await self._http.aclose()

        if self._grpc is not None:
            await self._grpc.aclose()


def _make_http(settings: Settings) -> HttpCallouts | None:
    key = "upstreams" if settings.upstreams else "callouts"

    if not settings.upstreams and not settings.callouts.allow_hosts:
        return None

    try:
        # Not at the top: it takes longer to import than all the rest, and few need it.
        from wasm_middleware.services.callout import HttpCallouts
    except ImportError as error:
        message = f"needs {error.name}, which is not installed"
        hint = "pip install 'wasm-middleware[http]'"
        raise ConfigError([settings.source.diagnostic((key,), message, hint)]) from error

    return HttpCallouts(settings)


def _make_grpc(settings: Settings) -> GrpcUpstreams | None:
    if not settings.upstreams and not settings.callouts.allow_hosts:
        return None

    # Not at the top, for the same reason.
    from wasm_middleware.services.grpc import GrpcUpstreams

    return GrpcUpstreams(settings)
