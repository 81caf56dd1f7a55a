"""One instance on each engine."""

from __future__ import annotations

import pytest

from wasm_middleware.engines.protocol import Engine

from .bench import Bench, Make


@pytest.fixture
def make(engine: Engine) -> Make:
    """Make an instance whose host calls are answered by a function of name and arguments."""
    return lambda answer: Bench(engine, answer)
