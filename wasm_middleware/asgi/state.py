"""What plugins found out, for the application: `request.state.wasm_properties`.

Values that plugins set with `proxy_set_property` are read by later plugins, and by the application
too: an authentication plugin says who the user is. They stand in the scope's `state`, which the
server makes for each request (ASGI, "Lifespan State"), under one key; nothing else of the state or
of the scope is touched. Where the server has no `state`, the application gets a copy of the scope
that has one.

A client can't set them. The properties of a request are its own, and gone with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from wasm_middleware.abi.properties import Path
from wasm_middleware.asgi.types import Scope

STATE_KEY = "wasm_properties"


class WasmProperties(Mapping[str, bytes]):
    """The properties that plugins have set for one request, by path: `"auth.user"`.

    It is live: what is set later, in a response phase say, is found as well. Segments are joined by
    dots; of two paths that look the same then, the one that was set first is found. Where one
    middleware stands in another, what the outer one's plugins have set is found behind that.
    """

    __slots__ = ("_outer", "_properties")

    def __init__(self, properties: Mapping[Path, bytes], outer: Mapping[str, bytes]) -> None:
        self._properties = properties
        self._outer = outer

    def __getitem__(self, name: str) -> bytes:
        for path, value in self._properties.items():
            if _dotted(path) == name:
                return value

        return self._outer[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*map(_dotted, self._properties), *self._outer]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        # Not the values: they may be secrets, and this may end up in a log.
        return f"<WasmProperties {', '.join(self)}>"


def _dotted(path: Path) -> str:
    return b".".join(path).decode("utf-8", "backslashreplace")


def with_properties(scope: Scope, properties: Mapping[Path, bytes], *, nested: bool) -> Scope:
    """The scope with these properties in its state; `nested` in what another middleware put there.

    The state is not copied: what the application puts there is for those outside as well.
    """
    state = scope.get("state")

    if state is None:
        return {**scope, "state": {STATE_KEY: WasmProperties(properties, {})}}

    state[STATE_KEY] = WasmProperties(properties, state.get(STATE_KEY, {}) if nested else {})
    return scope
