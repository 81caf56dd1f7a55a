"""`check`: everything about a file that can be wrong, found before a server starts.

The plugins are loaded and started as a server would, so that one which refuses its configuration
is found. Where a service would start without a plugin (`fail_open`), that is a finding here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import cast

import anyio
import click

from wasm_middleware.asgi.binding import Binding
from wasm_middleware.asgi.discovery import EndpointTable, find_application
from wasm_middleware.cli import output
from wasm_middleware.cli.application import (
    ApplicationError,
    Layer,
    import_application,
    middlewares,
)
from wasm_middleware.cli.conclusions import advice, bodies, phases_of
from wasm_middleware.cli.report import (
    CheckReport,
    EndpointRow,
    PluginRow,
    RouteRow,
    UpstreamRow,
)
from wasm_middleware.config import (
    PluginSettings,
    Settings,
    UpstreamSettings,
    load_settings,
    read_module,
)
from wasm_middleware.config.units import format_duration, format_size
from wasm_middleware.engines.module_info import read_module_info
from wasm_middleware.errors import ConfigError, Diagnostic
from wasm_middleware.runtime.engines import engine_of
from wasm_middleware.runtime.generation import Generation, load_generation
from wasm_middleware.runtime.plugin import LoadedPlugin

__all__ = ["check"]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--app",
    "app_name",
    metavar="MODULE:APP",
    help="Print what runs on each endpoint of this application, and what no plugin covers.",
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@click.pass_context
def check(context: click.Context, file: str, app_name: str | None, form: str) -> None:
    """Check a configuration FILE, and say which plugins run where.

    Every mistake is reported with its line, and every plugin is loaded and started, as a server
    would do it. The application, if there is one, is imported and not started.

    \b
    Exit codes: 0 no mistakes, 1 mistakes, 2 wrong usage.
    """
    level: str | None = context.obj

    with output.logging_to_stderr(level or "warn"):
        report = _make_report(file, app_name, level)

    if form == "json":
        output.echo_json(report.as_json())
    else:
        report.print()

    context.exit(1 if report.findings else 0)


def _make_report(file: str, app_name: str | None, level: str | None) -> CheckReport:
    report = CheckReport(file)
    app: object = None

    try:
        settings = load_settings(file, log_level=level)
    except ConfigError as error:
        report.findings += error.diagnostics
        return report

    report.warnings += settings.warnings

    if app_name is not None:
        report.application = app_name

        # Before there is an event loop: applications may run one of their own when imported.
        try:
            app = import_application(app_name)
        except ApplicationError as error:
            report.findings.append(Diagnostic(app_name, 0, 0, "", str(error)))

    anyio.run(_run_plugins, report, settings, app)
    return report


async def _run_plugins(report: CheckReport, settings: Settings, app: object) -> None:
    try:
        engine = engine_of(settings)

        with output.status("starting the plugins"):
            generation = await load_generation(_all_required(settings), engine)
    except ConfigError as error:
        report.findings += error.diagnostics
        return

    try:
        _describe(report, generation)

        if app is not None:
            _describe_application(report, generation, app)
    finally:
        # How a plugin takes its end is for a server's log.
        with output.silent_log():
            await generation.close()


def _all_required(settings: Settings) -> Settings:
    """The settings with no plugin that the service may start without."""
    plugins = [
        plugin.model_copy(update={"failure_policy": "fail_closed"}) for plugin in settings.plugins
    ]
    return settings.model_copy(update={"plugins": tuple(plugins)})


def _describe(report: CheckReport, generation: Generation) -> None:
    settings = generation.settings
    report.engine = generation.engine.description

    for index, plugin in enumerate(generation.plugins.values()):
        report.plugins.append(_plugin_row(settings, plugin))
        report.warnings += _plugin_warnings(settings, index, plugin)
        report.warnings += _time_warnings(settings, index, plugin.settings)

    for route in settings.routes or ():
        methods = ",".join(sorted(route.methods or ())) or "*"
        chain = generation.routes[route.id]
        report.routes.append(RouteRow(route.id, methods, route.path, chain.names))

    if settings.routes is None:
        every = generation.chain_for("/", "", "GET")
        report.routes.append(RouteRow("every request", "*", "/*", every.names))

    report.upstreams += [_upstream_row(name, upstream) for name, upstream in settings.upstreams]

    for host in sorted(settings.callouts.allow_hosts, key=lambda host: host.authority):
        report.upstreams.append(_upstream_row(host.authority, UpstreamSettings(url=host)))


def _upstream_row(name: str, upstream: UpstreamSettings) -> UpstreamRow:
    url, ca_file = upstream.url, upstream.ca_file
    trusted = "the system's CAs" if ca_file is None else f"the CAs of {os.path.relpath(ca_file)}"
    return UpstreamRow(
        name=name,
        url=str(url) if url.path is None else f"unix:{os.path.relpath(url.path)}",
        tls=f"TLS, {trusted}" if url.scheme == "https" else "plain",
        timeout=format_duration(upstream.timeout),
        max_in_flight=upstream.max_in_flight,
        response_limit=format_size(upstream.response_limit),
    )


def _plugin_row(settings: Settings, plugin: LoadedPlugin) -> PluginRow:
    inspection, phases = plugin.inspection, phases_of(plugin)
    info = read_module_info(read_module(plugin.settings, settings.source))
    return PluginRow(
        name=plugin.name,
        type=plugin.settings.type,
        path=os.path.relpath(plugin.settings.path),
        abi=str(inspection.abi),
        phases=phases,
        bodies=bodies(phases, inspection),
        unknown_imports=[f"{entry.module}.{entry.name}" for entry in inspection.unknown_imports],
        advice=advice(plugin.settings, phases, info),
    )


def _plugin_warnings(settings: Settings, index: int, plugin: LoadedPlugin) -> Iterator[Diagnostic]:
    """Phases that the file asks for and the module can't run."""
    where = ("plugins", index, "phase")

    # To a network plugin it means nothing, which reading the file has said.
    if where not in settings.source.places or plugin.plugin.network:
        return

    for phase in plugin.settings.phase:
        if phase not in phases_of(plugin):
            message = f"{plugin.name} is never called in {phase}"
            exported = f"proxy_{phase}" in plugin.inspection.callbacks
            reason = "`bodies` or `allowed_capabilities` keep it out, or it reads no bodies"
            hint = reason if exported else f"its module exports no proxy_{phase}"
            yield settings.source.diagnostic(where, message, hint)


def _time_warnings(settings: Settings, index: int, plugin: PluginSettings) -> Iterator[Diagnostic]:
    """Limits of time that are missing, or that never count."""
    timeout, in_all = plugin.timeout, plugin.request_timeout

    if timeout is None and in_all is None:
        message = f"{plugin.name} has no limit of time: a call of it may never end"

        if settings.scheduling == "inline" or settings.engine == "wasmer":
            message += ", and nothing else runs then, nor does the process stop when it is told to"

        hint = "give it a timeout, or a request_timeout"
        yield settings.source.diagnostic(("plugins", index, "timeout"), message, hint)

    if timeout is not None and in_all is not None and in_all < timeout:
        message = (
            f"{plugin.name} may take {format_duration(in_all)} in all calls of a request, less "
            f"than its timeout of {format_duration(timeout)} for each"
        )
        yield settings.source.diagnostic(("plugins", index, "request_timeout"), message)


def _describe_application(report: CheckReport, generation: Generation, app: object) -> None:
    name = report.application
    layers = middlewares(app)
    ours = _our_layer(report, layers)
    routed = find_application(app)
    fixed = ours.options.get("plugins") if ours is not None and ours.options else None

    try:
        table = EndpointTable(routed)
        binding = Binding(generation, table, cast("Sequence[str] | None", fixed))
    except ConfigError as error:
        report.findings += error.diagnostics
        return

    if routed is None:
        message = "its endpoints can't be listed: it has no Starlette or FastAPI routes"
        report.warnings.append(Diagnostic(name, 0, 0, "", message))

    for found in binding.endpoint_chains():
        endpoint, chain = found.endpoint, found.chain
        others = [other.names for other in found.others]
        row = EndpointRow(
            found.methods, endpoint.path, endpoint.name, chain.route, chain.names, others
        )
        report.endpoints.append(row)

    report.warnings += _encoder_warnings(report, layers, generation)


def _our_layer(report: CheckReport, layers: Sequence[Layer]) -> Layer | None:
    """The middleware that reads the file; a warning where there is none."""
    ours = [layer for layer in layers if layer.options is not None]

    for layer in ours:
        config = (layer.options or {}).get("config")

        if not isinstance(config, (str, os.PathLike)) or _same_file(config, report.file):
            return layer

    message = (
        f"its WasmPluginMiddleware reads {ours[0].options['config']}, not {report.file}"
        if ours and ours[0].options
        else "it has no WasmPluginMiddleware of its own: what is shown is what one would run"
    )
    report.warnings.append(Diagnostic(report.application, 0, 0, "", message))
    return None


def _same_file(one: object, other: str) -> bool:
    return os.path.realpath(cast("str | os.PathLike[str]", one)) == os.path.realpath(other)


def _encoder_warnings(
    report: CheckReport, layers: Sequence[Layer], generation: Generation
) -> Iterator[Diagnostic]:
    """Responses that are compressed before plugins see them."""
    readers = [plugin.name for plugin in generation.plugins.values() if plugin.wants_response_body]
    positions = [index for index, layer in enumerate(layers) if layer.options is not None]

    if not readers or not positions:
        return

    for layer in layers[positions[0] + 1 :]:
        if layer.encodes:
            message = (
                f"{layer.name} is inside WasmPluginMiddleware, so {', '.join(readers)} would see "
                "encoded response bodies"
            )
            hint = f"add {layer.name} after WasmPluginMiddleware, which puts it outside"
            yield Diagnostic(report.application, 0, 0, "", message, hint)
