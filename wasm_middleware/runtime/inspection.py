"""What a module's outside says about it as a Proxy-Wasm plugin.

The ABI version is the marker that it exports. Which phases it wants is not told by its exports,
since every SDK exports every callback; its imports tell more. A body phase is run
where the callback is exported and a buffer call is imported; a body may come out changed where
`proxy_set_buffer_bytes` is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from wasm_middleware.abi.enums import AbiVersion
from wasm_middleware.abi.signatures import CALLBACKS, MARKERS
from wasm_middleware.engines.module_info import ExternKind, Import, ModuleInfo
from wasm_middleware.proxy_wasm.hostcalls import is_known

_BUFFER_CALLS = ("proxy_get_buffer_bytes", "proxy_set_buffer_bytes", "proxy_get_buffer_status")
#: The second one has `set_envoy_filter_state`.
SET_PROPERTY_CALLS = ("proxy_set_property", "proxy_call_foreign_function")
#: Those of a plugin of type network, in the order in which a connection meets them.
NETWORK_PHASES = (
    "on_new_connection",
    "on_downstream_data",
    "on_upstream_data",
    "on_downstream_connection_close",
    "on_upstream_connection_close",
)
NETWORK_CALLBACKS = frozenset(f"proxy_{phase}" for phase in NETWORK_PHASES)
_ALLOCATORS = ("proxy_on_memory_allocate", "malloc")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was concluded; `problems` make it unfit to load."""

    abi: AbiVersion | None
    #: The callbacks that it exports, by their ABI names.
    callbacks: frozenset[str]
    reads_bodies: bool
    changes_bodies: bool
    #: It has a call that can set a property of a request.
    sets_properties: bool
    #: Imports from beyond the ABI: they are linked, and logged when they are called.
    unknown_imports: tuple[Import, ...]
    problems: tuple[str, ...]


def inspect_module(info: ModuleInfo) -> Inspection:
    """Draw the conclusions."""
    abi = next((MARKERS[export.name] for export in info.exports if export.name in MARKERS), None)
    callbacks = frozenset(
        export.name
        for export in info.exports
        if export.kind is ExternKind.FUNCTION and export.name in CALLBACKS
    )
    unknown = tuple(
        entry
        for entry in info.imports
        if entry.kind is ExternKind.FUNCTION and not is_known(entry.module, entry.name)
    )
    return Inspection(
        abi=abi,
        callbacks=callbacks,
        reads_bodies=info.imports_function(*_BUFFER_CALLS),
        changes_bodies=info.imports_function("proxy_set_buffer_bytes"),
        sets_properties=info.imports_function(*SET_PROPERTY_CALLS),
        unknown_imports=unknown,
        problems=tuple(_problems(info, abi, callbacks)),
    )


def _problems(info: ModuleInfo, abi: AbiVersion | None, callbacks: frozenset[str]) -> list[str]:
    problems = []

    if abi is None:
        problems.append(
            "it exports no marker of a known ABI version: it is not a Proxy-Wasm plugin, or one "
            "for a version that this host does not have"
        )

    if not callbacks.intersection(_ALLOCATORS):
        problems.append(f"it exports no allocator ({' or '.join(_ALLOCATORS)})")

    for entry in info.imports:
        if entry.kind is not ExternKind.FUNCTION:
            problems.append(
                f"it imports the {entry.kind.name.lower()} {entry.module}.{entry.name}: only "
                "functions can be given to a plugin"
            )

    if info.memories > 1:
        problems.append(f"it has {info.memories} memories: a plugin has one")

    if info.memory is not None and info.memory.is_shared:
        problems.append("its memory is shared between threads: a plugin has none")

    for name in sorted(callbacks):
        export = info.exported_function(name)
        expected = CALLBACKS[name].signatures

        if export is not None and export.signature not in expected:
            problems.append(f"its {name} has the type {export.signature}, not {expected[0]}")

    return problems
