"""`inspect`: what a module's bytes say about it as a plugin."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

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
from wasm_middleware.errors import ConfigError
from wasm_middleware.limits import DEFAULT_MEMORY_LIMIT, KIB, MIB
from wasm_middleware.proxy_wasm.hostcalls import is_known
from wasm_middleware.runtime.engines import make_engine
from wasm_middleware.runtime.inspection import Inspection, inspect_module

__all__ = ["inspect"]
