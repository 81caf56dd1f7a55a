"""The configuration: a YAML file or a dict in, frozen settings or every mistake in it out."""

from __future__ import annotations

from .load import load_settings
from .modules import read_module
from .schema import json_schema
from .settings import (
    LOG_LEVELS,
    PHASES,
    FailurePolicy,
    Instances,
    LogLevel,
    Phase,
    PluginDefaults,
    PluginSettings,
    RoutePlugin,
    RouteSettings,
    Settings,
)
from .source import Source

__all__ = [
    "LOG_LEVELS",
    "PHASES",
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
    "json_schema",
    "load_settings",
    "read_module",
]
