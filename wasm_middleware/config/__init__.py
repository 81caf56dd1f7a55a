"""The configuration: a YAML file or a dict in, frozen settings or every mistake in it out."""

from __future__ import annotations

from wasm_middleware.config.addresses import Address
from wasm_middleware.config.load import load_settings
from wasm_middleware.config.modules import read_module
from wasm_middleware.config.schema import json_schema
from wasm_middleware.config.settings import (
    LOG_LEVELS,
    PHASES,
    CalloutSettings,
    FailurePolicy,
    Instances,
    LogLevel,
    Phase,
    PluginDefaults,
    PluginSettings,
    RoutePlugin,
    RouteSettings,
    Settings,
    UpstreamSettings,
)
from wasm_middleware.config.source import Source

__all__ = [
    "LOG_LEVELS",
    "PHASES",
    "Address",
    "CalloutSettings",
    "FailurePolicy",
    "Instances",
    "LogLevel",
    "Phase",
    "PluginDefaults",
    "PluginSettings",
    "RoutePlugin",
    "RouteSettings",
    "Settings",
    "Source",
    "UpstreamSettings",
    "json_schema",
    "load_settings",
    "read_module",
]
