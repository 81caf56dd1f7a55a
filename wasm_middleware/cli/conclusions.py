"""What is concluded from a module, in words: which bodies it sees, and what would spare it calls.

Exports don't tell what a plugin wants, and imports tell only where the toolchain leaves out what
is not used. So where bodies are passed through a plugin that may not look at them,
the advice is to say so in the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from wasm_middleware.abi.signatures import ENV, HOST_CALLS, WASI_CALLS
from wasm_middleware.config import PHASES, PluginSettings
from wasm_middleware.engines.module_info import Import, ModuleInfo
from wasm_middleware.proxy_wasm.hostcalls import is_known
from wasm_middleware.runtime.inspection import NETWORK_PHASES, Inspection
from wasm_middleware.runtime.plugin import LoadedPlugin

__all__ = [
    "advice",
    "bodies",
    "expected_signature",
    "phases_of",
    "tells_little",
]

_BODY_PHASES: Final = {"on_request_body": "request", "on_response_body": "response"}
_DATA_PHASES: Final = {"on_downstream_data": "downstream", "on_upstream_data": "upstream"}
#: proxy-wasm-rust-sdk's trait objects keep 32 calls whatever the plugin does; no plugin in Go, C++
#: or AssemblyScript that was seen imports half as many.
_NEARLY_ALL: Final = 24


def phases_of(plugin: LoadedPlugin) -> tuple[str, ...]:
    """The phases in which the plugin is called."""
    core, exported = plugin.plugin, plugin.inspection.callbacks
    wanted = (phase for phase in PHASES if phase in core.phases)
    return tuple(
        phase
        for phase in ((*NETWORK_PHASES, *wanted) if core.network else wanted)
        if f"proxy_{phase}" in exported and core.allows(f"proxy_{phase}")
    )


def bodies(phases: Iterable[str], inspection: Inspection) -> str:
    """Which bodies, or which data of a connection, a plugin that runs in `phases` sees, and whether
    they may come out changed."""
    words = {**_BODY_PHASES, **_DATA_PHASES}
    seen = [word for phase, word in words.items() if phase in phases]

    if not seen:
        return "never seen"

    what = " and ".join(seen)
    return f"{what} may be changed" if inspection.changes_bodies else f"{what} read"


def tells_little(info: ModuleInfo) -> bool:
    """Whether a module imports so much that its imports say nothing about what it does."""
    return sum(entry.module == ENV for entry in info.imports) >= _NEARLY_ALL


def advice(settings: PluginSettings, phases: Iterable[str], info: ModuleInfo) -> str:
    """How the file could spare the plugin calls; empty where it can't, or has said it."""
    given = settings.model_fields_set
    seen = [phase for phase in phases if phase in _BODY_PHASES]

    if not seen or settings.type == "network" or "phase" in given or "bodies" in given:
        return ""

    calls = " and ".join(seen)

    if tells_little(info):
        return (
            "its imports don't tell whether it looks at bodies, since Rust's SDK imports nearly "
            f"all host calls; if it does not, `bodies: false` or its `phase` spares it {calls}"
        )

    if not info.imports_function("proxy_set_buffer_bytes"):
        return (
            "it may import proxy_get_buffer_bytes for its configuration alone; if so, "
            f"`bodies: false` spares it {calls}"
        )

    if len(seen) > 1:
        return "if it changes the bodies of requests or of responses alone, name its `phase`"

    return ""


def expected_signature(entry: Import) -> str:
    """The type that an imported function should have; empty where the module's own is right."""
    if not entry.signature or not is_known(entry.module, entry.name):
        return ""

    call = (HOST_CALLS if entry.module == ENV else WASI_CALLS)[entry.name]
    return "" if entry.signature in call.signatures else call.signature
