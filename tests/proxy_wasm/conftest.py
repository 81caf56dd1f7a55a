"""Scripted guests on each engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from wasm_middleware.engines.protocol import Engine, Module
from wasm_middleware.limits import DEFAULT_MEMORY_LIMIT
from wasm_middleware.proxy_wasm.plugin import Plugin
from wasm_middleware.proxy_wasm.ports import Services

from . import harness
from .harness import LOGGER, Guest, MakeGuest
from .scripted import EVERYTHING, Shape, guest_module


@pytest.fixture(scope="session")
def modules() -> dict[tuple[Engine, Shape], Module]:
    """What has been compiled already, by engine and shape."""
    return {}


@pytest.fixture
def services() -> Services:
    return harness.services(http=harness.FakeHttp(), grpc=harness.FakeGrpc())


def _factory(
    engine: Engine, modules: dict[tuple[Engine, Shape], Module], services: Services
) -> Iterator[MakeGuest]:
    made: list[Guest] = []

    def make(
        *,
        shape: Shape = EVERYTHING,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
        start: bool = True,
        **options: object,
    ) -> Guest:
        key = engine, shape

        if key not in modules:
            modules[key] = guest_module(engine, shape)

        defaults: dict[str, object] = {"name": "tested", "logger": LOGGER, "timeout": None}
        plugin = Plugin(**{**defaults, **options})  # type: ignore[arg-type]
        guest = Guest(modules[key], plugin, services, shape, memory_limit)
        made.append(guest)
        return guest.start() if start else guest

    yield make

    for guest in made:
        guest.instance.close()


@pytest.fixture
def make_guest(
    engine: Engine, modules: dict[tuple[Engine, Shape], Module], services: Services
) -> Iterator[MakeGuest]:
    """Make a scripted guest: started, unless `start=False`; options are those of `Plugin`."""
    yield from _factory(engine, modules, services)


@pytest.fixture
def make_wasm_guest(
    wasm_engine: Engine, modules: dict[tuple[Engine, Shape], Module], services: Services
) -> Iterator[MakeGuest]:
    """The same where only WebAssembly will do: spinning, running out of memory."""
    yield from _factory(wasm_engine, modules, services)


@pytest.fixture
def guest(make_guest: Callable[..., Guest]) -> Guest:
    """A scripted guest with nothing written down."""
    return make_guest()
