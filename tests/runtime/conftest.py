from __future__ import annotations

from pathlib import Path

import pytest
from asgi.harness import Workshop


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """Plugins in Python."""
    return Workshop(tmp_path)
