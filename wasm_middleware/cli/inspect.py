"""`inspect`: what a module's bytes say about it as a plugin."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from wasm_middleware.cli import output
from wasm_middleware.cli.conclusions import bodies, expected_signature, tells_little
from wasm_middleware.config import PHASES, PluginSettings, Settings, read_module
from wasm_middleware.engines.module_info import (
    PAGE,
    ExternKind,
    Import,
    ModuleFormatError,
    ModuleInfo,
    is_component,
    read_module_info,
)
from wasm_middleware.engines.protocol import Engine
from wasm_middleware.errors import ConfigError, EngineUnavailableError
from wasm_middleware.limits import DEFAULT_MEMORY_LIMIT, KIB, MIB
from wasm_middleware.proxy_wasm.hostcalls import is_known
from wasm_middleware.runtime.engines import make_engine
from wasm_middleware.runtime.inspection import NETWORK_PHASES, Inspection, inspect_module

__all__ = ["inspect"]


@dataclass(slots=True)
class _Report:
    """All that is known of a file; `problems` keep it from being loaded as a plugin."""

    file: str
    size: int
    sha256: str
    #: What compiled it.
    engine: str
    kind: str = "not a WebAssembly module"
    info: ModuleInfo | None = None
    inspection: Inspection | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.option(
    "--engine",
    "engine_name",
    type=click.Choice(["wasmtime", "wasmer"]),
    default="wasmtime",
    help="What compiles it; the one of the configuration that it is for.  [default: wasmtime]",
)
@click.pass_context
def inspect(context: click.Context, file: Path, form: str, engine_name: str) -> None:
    """Say what a module FILE is: its ABI, its imports and exports, what it does with bodies.

    It is compiled, to be sure that it is valid, but not run.

    \b
    Exit codes: 0 a plugin, 1 not one that can be loaded, 2 wrong usage.
    """
    try:
        engine = make_engine(engine_name)
    except EngineUnavailableError as error:
        raise click.UsageError(str(error)) from error

    try:
        report = _examine(file, engine)
    finally:
        engine.close()

    if form == "json":
        output.echo_json(_as_json(report))
    else:
        _print(report)

    context.exit(1 if report.problems else 0)


def _examine(file: Path, engine: Engine) -> _Report:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    # How it would be called is for `check` to say: that depends on the configuration.
    report = _Report(str(file), len(content), digest, engine.description.partition(",")[0])

    if is_component(content):
        report.kind = "component"

    try:
        # What `path` in a configuration file would be told.
        read_module(PluginSettings(name="inspected", path=file), Settings().source)
    except ConfigError as error:
        report.problems += [
            diagnostic.message + (f" ({diagnostic.hint})" if diagnostic.hint else "")
            for diagnostic in error.diagnostics
        ]
        return report

    try:
        report.info = read_module_info(content)
        report.kind = "core module"
        report.inspection = inspect_module(report.info)
        report.problems += report.inspection.problems
        report.problems += _wrong_signatures(report.info)
        report.notes += _notes(report.info, report.inspection)

        with output.status("compiling"):
            engine.compile(content)
    except ModuleFormatError as error:
        report.problems.append(str(error))

    return report


def _wrong_signatures(info: ModuleInfo) -> Iterator[str]:
    for entry in info.imports:
        expected = expected_signature(entry)

        if expected:
            yield (
                f"it imports {entry.module}.{entry.name} with the type {entry.signature}, but that "
                f"is {expected}"
            )


def _notes(info: ModuleInfo, inspection: Inspection) -> Iterator[str]:
    if inspection.reads_bodies and tells_little(info):
        yield (
            "it imports nearly all host calls, as Rust's SDK makes it: whether it looks at bodies "
            "can't be told; if it does not, say `bodies: false` or name its `phase`"
        )

    if info.memory is not None and info.memory.minimum * PAGE > DEFAULT_MEMORY_LIMIT:
        yield (
            f"it begins with {_in_units(info.memory.minimum * PAGE)} of memory: its memory_limit "
            f"has to be more than the default of {_in_units(DEFAULT_MEMORY_LIMIT)}"
        )


def _phases(inspection: Inspection) -> Sequence[str]:
    """The phases in which it runs where the file does not choose."""
    return [
        phase
        for phase in PHASES
        if f"proxy_{phase}" in inspection.callbacks
        and (inspection.reads_bodies or not phase.endswith("_body"))
    ]


def _network_phases(inspection: Inspection) -> Sequence[str]:
    """Those in which it would run with `type: network`."""
    return [phase for phase in NETWORK_PHASES if f"proxy_{phase}" in inspection.callbacks]


def _mark(entry: Import) -> str:
    """What to say of an import; nothing where all is well."""
    if entry.kind is not ExternKind.FUNCTION:
        return f"a {entry.kind.name.lower()}: can't be given to a plugin"

    if not is_known(entry.module, entry.name):
        return "unknown: no ABI has it, a call of it is logged"

    expected = expected_signature(entry)
    return f"wrong type: should be {expected}" if expected else ""


def _print(report: _Report) -> None:
    facts = [
        ("file", report.file),
        ("kind", report.kind),
        ("size", f"{report.size:,} bytes"),
        ("sha256", report.sha256),
        ("engine", report.engine),
    ]

    if report.info is not None:
        facts.append(("memory", _memory(report.info)))

    if report.inspection is not None:
        phases = _phases(report.inspection)
        facts += [
            ("ABI", str(report.inspection.abi or "none")),
            ("phases", ", ".join(phases) or "none"),
            ("bodies", bodies(phases, report.inspection)),
        ]

        network = _network_phases(report.inspection)

        if network:
            facts.append(("network", ", ".join(network)))

    for line in output.columns(facts, indent=""):
        output.echo(line)

    if report.info is not None:
        _print_imports(report.info)
        _print_exports(report.info, report.inspection)

    for note in report.notes:
        output.echo(f"note: {note}")

    for problem in report.problems:
        output.error(f"{report.file}: {problem}")


def _print_imports(info: ModuleInfo) -> None:
    output.echo()
    output.echo("imports", style="bold")

    rows = [
        (f"{entry.module}.{entry.name}", entry.signature, _mark(entry)) for entry in info.imports
    ]

    for row, line in zip(rows, output.columns(rows), strict=True):
        output.echo(line, style="yellow" if row[2] else "")


def _print_exports(info: ModuleInfo, inspection: Inspection | None) -> None:
    callbacks = inspection.callbacks if inspection is not None else frozenset()
    output.echo()
    output.echo("exports", style="bold")
    rows = [
        (
            export.name,
            export.signature or export.kind.name.lower(),
            "callback" if export.name in callbacks else "other",
        )
        for export in info.exports
    ]

    for line in output.columns(sorted(rows, key=lambda row: row[2])):
        output.echo(line)

    output.echo()


def _memory(info: ModuleInfo) -> str:
    if info.memory is None:
        return "none"

    minimum, maximum = info.memory.minimum, info.memory.maximum
    most = "no maximum" if maximum is None else f"at most {_in_units(maximum * PAGE)}"
    return f"{_in_units(minimum * PAGE)}, {most}"


def _in_units(size: int) -> str:
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size // KIB} KiB"


def _as_json(report: _Report) -> dict[str, object]:
    result: dict[str, object] = {
        "file": report.file,
        "ok": not report.problems,
        "kind": report.kind,
        "size": report.size,
        "sha256": report.sha256,
        "engine": report.engine,
        "problems": report.problems,
        "notes": report.notes,
    }

    if report.info is not None and report.inspection is not None:
        info, inspection = report.info, report.inspection
        phases = _phases(inspection)
        result |= {
            "abi": str(inspection.abi) if inspection.abi else None,
            "memory": dataclasses.asdict(info.memory) if info.memory else None,
            "phases": phases,
            "network_phases": _network_phases(inspection),
            "bodies": bodies(phases, inspection),
            "reads_bodies": inspection.reads_bodies,
            "changes_bodies": inspection.changes_bodies,
            "imports": [_import_as_json(entry) for entry in info.imports],
            "exports": [
                {
                    "name": export.name,
                    "kind": export.kind.name.lower(),
                    "type": export.signature,
                    "callback": export.name in inspection.callbacks,
                }
                for export in info.exports
            ],
        }

    return result


def _import_as_json(entry: Import) -> dict[str, object]:
    return {
        "module": entry.module,
        "name": entry.name,
        "kind": entry.kind.name.lower(),
        "type": entry.signature,
        "known": is_known(entry.module, entry.name),
        "expected_type": expected_signature(entry) or None,
    }
