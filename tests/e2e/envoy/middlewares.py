"""Our side: each case's application behind a middleware with that case's plugin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from tests.e2e.envoy.cases import CASES
from tests.e2e.envoy.shapes import Case, module
from tests.e2e.serving import HOST
from wasm_middleware import WasmPluginMiddleware
from wasm_middleware.config import Settings, load_settings

App = TypeVar("App")


def wrapped(folder: Path, apps: Mapping[str, App]) -> dict[str, WasmPluginMiddleware]:
    """The applications with their plugins; `folder` has the ports of the other side.

    They share two sets of settings: with call-outs, and without.
    """
    ports = json.loads((folder / "plain.ports").read_text(encoding="utf-8"))
    upstreams = {name: f"http://{HOST}:{ports[name]}" for name in ("upstream", "refused")}
    calling = [case for case in CASES if "httpcall" in case.config]
    plain = [case for case in CASES if case not in calling]
    settings = dict.fromkeys(_ids(plain), _settings(plain))
    settings |= dict.fromkeys(_ids(calling), _settings(calling, upstreams))
    return {
        case.id: WasmPluginMiddleware(apps[case.id], config=settings[case.id], plugins=[case.id])
        for case in CASES
    }


def first_of_each(
    middlewares: Mapping[str, WasmPluginMiddleware],
) -> Iterator[WasmPluginMiddleware]:
    """One middleware of each settings: once it has started, all of those have their plugins."""
    for calling in (False, True):
        case = next(case for case in CASES if ("httpcall" in case.config) is calling)
        yield middlewares[case.id]


def _ids(cases: Iterable[Case]) -> list[str]:
    return [case.id for case in cases]


def _settings(cases: Iterable[Case], upstreams: Mapping[str, str] | None = None) -> Settings:
    plugins = [
        {
            "name": case.id,
            "path": str(module(case.plugin)),
            "config": case.script,
            "vm_id": case.id,
            "log_level": "trace",
            # Not what is compared: the machine may be busy, and Go's start takes its time.
            "timeout": "5s",
            "memory_limit": "64MB",
        }
        for case in cases
    ]
    return load_settings({"plugins": plugins} | ({"upstreams": upstreams} if upstreams else {}))
