"""Puts it together: read, check everything, complete.

Every check runs, whatever the others found, and each works on what was written. Only when all of
them are content are there settings; so a file with five mistakes is a list of five.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from pydantic import ValidationError

from wasm_middleware.config.addresses import check_upstreams
from wasm_middleware.config.diagnostics import diagnose
from wasm_middleware.config.loader import read_yaml
from wasm_middleware.config.modules import check_modules
from wasm_middleware.config.problems import Loc
from wasm_middleware.config.references import check_references, find_oddities
from wasm_middleware.config.settings import PluginSettings, Settings, UpstreamSettings
from wasm_middleware.config.source import OPTIONS, Source
from wasm_middleware.config.tree import read_mapping
from wasm_middleware.errors import ConfigError, Diagnostic

__all__ = ["load_settings"]


def load_settings(
    config: str | os.PathLike[str] | Mapping[str, object] | Settings,
    /,
    *,
    check_files: bool = True,
    **overrides: object,
) -> Settings:
    """Read a configuration from a YAML file, a dict or settings, and check all of it.

    Keyword options replace the top-level keys of the same name; None leaves the file's value.
    Relative module paths are relative to the file, or to the working folder for a dict. With
    `check_files`, each module and each `ca_file` is looked at too. Raises `ConfigError` with every
    mistake there is.
    """
    options = {name: value for name, value in overrides.items() if value is not None}
    problems: list[Diagnostic] = []

    if isinstance(config, Settings):
        if not options:
            return config

        source = config.source

        if config.model_fields_set and not source.values:
            raise TypeError("options don't combine with settings that were made by hand")

    elif isinstance(config, Mapping):
        source, problems = read_mapping(config, os.environ)
    else:
        source, problems = read_yaml(config, os.environ)

    if options:
        given, more = read_mapping(options, os.environ, OPTIONS)
        source = source.overridden(given)
        problems = [known for known in problems if known.path.partition(".")[0] not in options]
        problems += more

    return _settings(source, problems, check_files=check_files)


def _settings(source: Source, problems: list[Diagnostic], *, check_files: bool) -> Settings:
    settings = None

    try:
        settings = Settings.model_validate(_as_spelled(source))
    except ValidationError as error:
        problems += diagnose(error, source)

    problems += check_references(source)
    problems += check_upstreams(source, check_files=check_files)

    if check_files:
        problems += check_modules(source)

    # Out of the except block: pydantic's error must not hang on ours, it holds the values.
    if problems or settings is None:
        raise ConfigError(problems)

    return _completed(settings, source)


def _completed(settings: Settings, source: Source) -> Settings:
    """Fill in what plugins take from `defaults` and from the top level; make paths absolute."""
    plugins = tuple(_plugin(plugin, settings, source) for plugin in settings.plugins)
    upstreams = tuple((name, _upstream(entry, source)) for name, entry in settings.upstreams)
    complete = settings.model_copy(update={"plugins": plugins, "upstreams": upstreams})
    complete._source = source
    complete._warnings = tuple(sorted(find_oddities(source)))
    return complete


def _plugin(plugin: PluginSettings, settings: Settings, source: Source) -> PluginSettings:
    defaults = settings.defaults
    given = {"log_level": settings.log_level}
    given |= {name: getattr(defaults, name) for name in defaults.model_fields_set}
    own = plugin.model_fields_set
    missing = {name: value for name, value in given.items() if name not in own}
    return plugin.model_copy(update={**missing, "path": source.folder / plugin.path})


def _upstream(upstream: UpstreamSettings, source: Source) -> UpstreamSettings:
    url, ca_file = upstream.url, upstream.ca_file

    if url.path is not None:
        url = dataclasses.replace(url, path=source.folder / url.path)

    if ca_file is not None:
        ca_file = source.folder / ca_file

    return upstream.model_copy(update={"url": url, "ca_file": ca_file})


def _as_spelled(source: Source) -> dict[str, object]:
    """Give what was written, with plain numbers in an environment as text: 3.10 is not 3.1."""
    values = dict(source.values)
    plugins = values.get("plugins")

    if isinstance(plugins, list):
        values["plugins"] = [
            _with_text(source, entry, ("plugins", index)) for index, entry in enumerate(plugins)
        ]

    if "defaults" in values:
        values["defaults"] = _with_text(source, values["defaults"], ("defaults",))

    return values


def _with_text(source: Source, entry: object, loc: Loc) -> object:
    environment = entry.get("environment") if isinstance(entry, Mapping) else None

    if not isinstance(entry, Mapping) or not isinstance(environment, Mapping):
        return entry

    above = (*loc, "environment")
    spelled = {
        key: source.spellings.get((*above, key), value) if value is not None else None
        for key, value in environment.items()
    }
    return {**entry, "environment": spelled}
