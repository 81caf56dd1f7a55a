"""What `check` found, as data: printed for people, or written as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from wasm_middleware.cli import output
from wasm_middleware.config import PHASES
from wasm_middleware.errors import Diagnostic
from wasm_middleware.runtime.inspection import NETWORK_PHASES

__all__ = ["CheckReport", "EndpointRow", "PluginRow", "RouteRow", "UpstreamRow"]

_NO_PLUGIN = "no plugin"


@dataclass(frozen=True, slots=True)
class PluginRow:
    """A plugin that was loaded and started."""

    name: str
    #: "http" or "network".
    type: str
    path: str
    abi: str
    #: The phases in which it is called.
    phases: Sequence[str]
    #: What was concluded about bodies, in words.
    bodies: str
    unknown_imports: Sequence[str]
    advice: str


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A route of the file with its chain, in request order."""

    id: str
    methods: str
    path: str
    chain: Sequence[str]


@dataclass(frozen=True, slots=True)
class UpstreamRow:
    """A server that plugins may call: an upstream, or a host without one."""

    name: str
    url: str
    #: Whether there is TLS, and whom it trusts, in words.
    tls: str
    #: As in the file: "5s", "1MB".
    timeout: str
    max_in_flight: int
    response_limit: str


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """An endpoint of the application with its chain; `route` is empty where none matches.

    `other_chains` are those of some of its paths: `/{rest:path}` may belong to several routes.
    """

    methods: str
    path: str
    name: str
    route: str
    chain: Sequence[str]
    other_chains: Sequence[Sequence[str]] = ()


@dataclass(slots=True)
class CheckReport:
    """All of it. `findings` make the command fail, `warnings` don't."""

    file: str
    findings: list[Diagnostic] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    engine: str = ""
    plugins: list[PluginRow] = field(default_factory=list)
    #: Without `routes` in the file it is one row, for every request.
    routes: list[RouteRow] = field(default_factory=list)
    #: The upstreams in the file's order, then the hosts.
    upstreams: list[UpstreamRow] = field(default_factory=list)
    application: str = ""
    endpoints: list[EndpointRow] = field(default_factory=list)

    @property
    def uncovered(self) -> list[EndpointRow]:
        """The endpoints that no plugin runs on."""
        return [row for row in self.endpoints if not any((row.chain, *row.other_chains))]

    @property
    def partly_uncovered(self) -> list[EndpointRow]:
        """Those that no plugin runs on for some of their paths."""
        chains = [(row, (row.chain, *row.other_chains)) for row in self.endpoints]
        return [row for row, every in chains if any(every) and not all(every)]

    def print(self) -> None:
        """Print it for people: what is wrong to stderr, what runs where to stdout."""
        for finding in self.findings:
            output.error(str(finding))

        for warning in self.warnings:
            output.warning(str(warning))

        if self.engine:
            self._print_plugins()
            self._print_routes()

        if self.upstreams:
            self._print_upstreams()

        if self.endpoints:
            self._print_endpoints()

        if not self.findings:
            output.echo(f"{self.file}: no mistakes", style="green")

    def _print_plugins(self) -> None:
        output.echo(f"engine: {self.engine}")
        _heading("plugins")
        rows = [
            (row.name, f"ABI {row.abi}", f"{_seen(row)}: {row.bodies}", _phases(row.phases))
            for row in self.plugins
        ]

        for row, line in zip(self.plugins, output.columns(rows), strict=True):
            output.echo(line)

            for name in row.unknown_imports:
                output.echo(f"    imports {name}, which no ABI has: a call of it is logged")

            if row.advice:
                output.echo(f"    advice: {row.advice}", style="dim")

    def _print_routes(self) -> None:
        _heading("routes")
        rows = [(row.id, row.methods, row.path, _arrow(row.chain)) for row in self.routes]
        _print_lines(output.columns(rows))

    def _print_upstreams(self) -> None:
        _heading("plugins may call")
        rows = [
            (
                row.name,
                row.url,
                row.tls,
                f"timeout {row.timeout}",
                f"{row.max_in_flight} at a time",
                f"answers up to {row.response_limit}",
            )
            for row in self.upstreams
        ]
        _print_lines(output.columns(rows))

    def _print_endpoints(self) -> None:
        _heading(f"endpoints of {self.application}")
        rows = [
            (
                row.methods,
                row.path,
                row.name,
                ", or ".join(_arrow(chain) for chain in (row.chain, *row.other_chains)),
            )
            for row in self.endpoints
        ]
        _print_lines(output.columns(rows))

        for heading, uncovered in (
            ("no plugin runs on", self.uncovered),
            ("no plugin runs on some paths of", self.partly_uncovered),
        ):
            if uncovered:
                _heading(heading)
                _print_lines(output.columns((row.methods, row.path) for row in uncovered))

    def as_json(self) -> dict[str, object]:
        """The same for programs; the keys are a promise."""
        return {
            "file": self.file,
            "ok": not self.findings,
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "warnings": [dataclasses.asdict(warning) for warning in self.warnings],
            "engine": self.engine,
            "plugins": [dataclasses.asdict(row) for row in self.plugins],
            "routes": [dataclasses.asdict(row) for row in self.routes],
            "upstreams": [dataclasses.asdict(row) for row in self.upstreams],
            "application": self.application,
            "endpoints": [dataclasses.asdict(row) for row in self.endpoints],
            "uncovered": [f"{row.methods} {row.path}" for row in self.uncovered],
            "partly_uncovered": [f"{row.methods} {row.path}" for row in self.partly_uncovered],
        }


def _seen(row: PluginRow) -> str:
    return "websocket data" if row.type == "network" else "bodies"


def _phases(phases: Sequence[str]) -> str:
    if tuple(phases) in (PHASES, (*NETWORK_PHASES, "on_log")):
        return "every phase"

    return ", ".join(phases) or "no phase"


def _heading(text: str) -> None:
    output.echo()
    output.echo(text, style="bold")


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        output.echo(line)


def _arrow(chain: Sequence[str]) -> str:
    return " -> ".join(chain) or _NO_PLUGIN
