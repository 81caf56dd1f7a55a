from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasm_middleware.runtime.registry import REGISTRY

from .harness import Workshop


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def workshop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Workshop]:
    """Plugins in Python. At the end, no side has broken a rule of ASGI, and all were loaded."""
    workshop = Workshop(tmp_path)
    caplog.set_level(logging.INFO, "wasm_middleware")
    yield workshop
    assert workshop.violations == []
    messages = [record.getMessage() for record in caplog.get_records("call")]
    assert not [text for text in messages if "please report this" in text]

    if not workshop.may_refuse:
        assert not [text for text in messages if "requests are refused" in text]

    # A middleware without lifespan keeps what it has loaded for as long as the process lives.
    REGISTRY._shared.clear()
