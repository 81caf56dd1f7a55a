"""The page, from the rows and the words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.e2e.envoy.decisions import DECISIONS
from tests.proxy_wasm.test_accepted_statuses import ACCEPTED
from wasm_middleware.abi.enums import (
    AbiVersion,
    BufferType,
    DataStatus,
    HeadersStatus,
    MapType,
    Status,
)
from wasm_middleware.proxy_wasm.foreign import CONTEXT_FUNCTIONS
from wasm_middleware.services.foreign import foreign_functions

from . import words
from .rows import Row, callbacks, first_paragraph, host_calls, wasi_calls

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"

_HEAD = """\
# Compatibility with Proxy-Wasm

<!-- Made by `make docs` from the code and the tests: edits here are lost. -->

Which of Proxy-Wasm there is, what it does in an ASGI application, and which tests show it. Of the
{total} host calls and callbacks {ok} count as ok, {partial} as partial and {not_here} as not here;
[what is missing](#what-is-not-here) is due to ASGI or to the HTTP client, but for what stands
inside of certificates.

How they are counted: one row for each function that crosses the boundary, whatever the version.

- *ok*: it does what the specification, or Envoy, has it do, and tests show it. Where it answers or
  behaves in another way than in Envoy, as far as is known, that is among the
  [differences](#differences-from-envoy).
- *ok, trailers n/a (client)* counts as ok: {trailers} rows of calls to upstreams, which the HTTP
  client makes without trailers. Whoever needs those has to count these rows as partial.
- *partial*: a part of what Envoy gives is missing.
- *not*: it never happens.

Envoy's foreign functions are not counted here but [listed](#foreign-functions).

- [What is not here](#what-is-not-here)
- [Versions](#versions)
- [SDKs and toolchains](#sdks-and-toolchains)
- [Statuses](#statuses)
- [Host calls](#host-calls)
- [Callbacks](#callbacks)
- [Header maps and buffers](#header-maps-and-buffers)
- [Properties](#properties)
- [Action numbers](#action-numbers)
- [Foreign functions](#foreign-functions)
- [WASI](#wasi)
- [Differences from Envoy](#differences-from-envoy)
"""
_VERSIONS = """\
A module says its version by an export. Calls are linked by their names, whatever the version:
modules of each version import calls of the others. An import that nobody specified is linked too;
where it is called, it answers Unimplemented, and the log names it. A call that is declared with a
type of no version does not load. `wasm-middleware inspect FILE` shows all of this for a module.
"""
_SDKS = """\
What the tests run. Those that end in `.wat` are texts with the imports and exports of real modules
of toolchains that are not at hand everywhere.
"""
_STATUSES = """\
The SDKs for Rust and Go panic on a status that they don't expect of a call. These are the ones that
they all take, and a call answers no other to a plugin that is built with them: what is refused is
logged, and answered with one of these. A bad pointer is InvalidMemoryAccess, and a number that
stands for no map, buffer, stream, metric type or log level is BadArgument: their types have none.
A call that `allowed_capabilities` leave out is InternalFailure.
"""
_ROWS = """\
Under *versions*, *none* marks what no version of the specification has: other hosts, SDKs and
toolchains do.
"""
_PROPERTIES = """\
Values are encoded as in Envoy: text as it is; numbers, times and durations as 8 bytes,
little-endian; a bool as one byte; a map as headers are. What is not there is NotFound. The last
five every context has, the rest belong to a request.

What a plugin sets is found by it and by later plugins of the request under the same path, and as
`filter_state["wasm.PATH"]` as well, as in Envoy. `filter_state.*` and `metadata.*` hold what
plugins set there. None of it takes the place of a property of this table.
"""
_ACTIONS = """\
The specification has two: 0 goes on, 1 pauses. C++ plugins, and those of Higress's SDK, answer
more. Trailers and connections know the two.
"""
_FOREIGN = """\
An application gives its own with `foreign_functions=`; one with a name of these takes its place.
"""
_WASI = """\
Under `wasi_snapshot_preview1` and under its older name, `wasi_unstable`. A plugin has no files, no
sockets, no arguments and no environment but what its entry in the file gives it.
"""
_ENVOY = """\
Each row is a decision, and the cases that show it: the same plugin, configuration and request go
through Envoy 1.40 and through this host (`tests/e2e/envoy`), and nothing else differs.
"""

_READ = """\
These no case shows; what Envoy does is read from its sources.
"""


def page() -> str:
    calls, backs = host_calls(), callbacks()
    every = [*calls, *backs]
    sections = [
        ("", _head(every)),
        ("What is not here", _gaps(every)),
        ("Versions", _VERSIONS, _versions()),
        ("SDKs and toolchains", _SDKS, _sdks()),
        ("Statuses", _STATUSES, _statuses()),
        ("Host calls", _ROWS, _rows(calls)),
        ("Callbacks", _rows(backs)),
        (
            "Header maps and buffers",
            _named(MapType, words.MAPS, "map"),
            _named(BufferType, words.BUFFERS, "buffer"),
        ),
        (
            "Properties",
            _PROPERTIES,
            _properties(),
            _table(
                ["not here", "why"],
                ([_codes(names), why] for names, why in words.NO_PROPERTIES.items()),
            ),
        ),
        (
            "Action numbers",
            _ACTIONS,
            "From the callbacks for headers:\n",
            _named(HeadersStatus, words.HEADERS_STATUS, "answer"),
            "From the callbacks for bodies:\n",
            _named(DataStatus, words.DATA_STATUS, "answer"),
        ),
        ("Foreign functions", _FOREIGN, _foreign_functions()),
        ("WASI", _WASI, _wasi()),
        ("Differences from Envoy", _ENVOY, _decisions(), _READ, _differences()),
    ]
    return "\n".join(_section(*section) for section in sections)


def _head(rows: Sequence[Row]) -> str:
    return _HEAD.format(
        total=len(rows),
        ok=sum(row.counts_as_ok for row in rows),
        partial=sum(row.status == "partial" for row in rows),
        not_here=sum(row.status == "not" for row in rows),
        trailers=sum(row.status == words.OK_WITHOUT_TRAILERS for row in rows),
    )


def _section(title: str, *parts: str) -> str:
    return "\n".join([f"## {title}\n", *parts] if title else parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _codes(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def _rows(rows: Iterable[Row]) -> str:
    return _table(
        ["name", "versions", "status", "what it does here", "tests"],
        (
            [f"`{row.name}`", row.versions, _status(row), row.does, _proofs(row.proofs)]
            for row in rows
        ),
    )


def _status(row: Row) -> str:
    return f"{row.status}: {row.why}" if row.why else row.status


def _proofs(proofs: Iterable[str]) -> str:
    links = []

    for proof in proofs:
        file, _, name = proof.partition("::")
        links.append(f"[`{name}`](../tests/{file})")

    return "<br>".join(links)


def _gaps(rows: Iterable[Row]) -> str:
    return _table(
        ["name", "status", "due to", "why"],
        (
            [f"`{row.name}`", row.status, words.GAPS[row.name].cause, row.why]
            for row in rows
            if row.status != "ok"
        ),
    )


def _versions() -> str:
    return _table(
        ["version", "marker", "what is its own"],
        (
            [str(version), f"`{version.value}`", words.VERSIONS[str(version)]]
            for version in AbiVersion
        ),
    )


def _sdks() -> str:
    return _table(
        ["built with", "version", "modules", "to know"],
        (
            [
                sdk.name,
                sdk.markers,
                "<br>".join(f"[`{Path(file).name}`](../{file})" for file in sdk.modules),
                sdk.notes,
            ]
            for sdk in words.SDKS
        ),
    )


def _named(
    kinds: type[MapType | BufferType | HeadersStatus | DataStatus],
    said: Mapping[str, str],
    what: str,
) -> str:
    return _table(
        ["number", what, "here"],
        ([str(int(kind)), f"`{kind.name}`", said[kind.name]] for kind in kinds),
    )


def _statuses() -> str:
    return _table(
        ["call", "statuses"],
        (
            [f"`{name}`", ", ".join(_spoken(status) for status in sorted(statuses))]
            for name, statuses in ACCEPTED.items()
        ),
    )


def _spoken(status: Status) -> str:
    """As the specification's text has it: NotFound."""
    return "OK" if status is Status.OK else status.name.title().replace("_", "")


def _properties() -> str:
    both = {**words.PROPERTIES, **words.PLUGIN_PROPERTIES}
    return _table(
        ["path", "type", ""], ([f"`{path}`", kind, note] for path, (kind, note) in both.items())
    )


def _foreign_functions() -> str:
    return _table(["name", "what it does"], _function_rows())


def _function_rows() -> Iterator[list[str]]:
    functions = {**foreign_functions({}), **CONTEXT_FUNCTIONS}

    for name, function in sorted(functions.items()):
        # Those that need a library may be stood for by others, which say nothing.
        yield [f"`{name}`", words.FOREIGN_FUNCTIONS.get(name) or first_paragraph(function)]

    for names, why in words.NO_FOREIGN_FUNCTIONS.items():
        yield [_codes(names), f"not here: {why}"]


def _wasi() -> str:
    """Calls with the same answer share a row."""
    names: dict[tuple[str, tuple[str, ...]], list[str]] = {}

    for name, answer, proofs in wasi_calls():
        names.setdefault((answer, proofs), []).append(name)

    return _table(
        ["call", "what it answers", "tests"],
        (
            [_codes(", ".join(same)), answer, _proofs(proofs)]
            for (answer, proofs), same in names.items()
        ),
    )


def _decisions() -> str:
    return _table(
        ["decision", "reason", "cases"],
        (
            [f"`{decision.id}`", decision.reason, _codes(", ".join(sorted(decision.by_case())))]
            for decision in DECISIONS
        ),
    )


def _differences() -> str:
    return _table(
        ["call", "here", "in Envoy", "why", "test"],
        (
            [f"`{item.calls}`", item.here, item.envoy, item.why, _proofs([item.proof])]
            for item in words.DIFFERENCES
        ),
    )
