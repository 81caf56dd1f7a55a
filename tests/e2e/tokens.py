"""JSON Web Tokens, good and bad, for the example's jwt-auth."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

SECRET = "the-secret-of-the-example"


def token(*, secret: str = SECRET, algorithm: str = "HS256", expires_in: float = 60.0) -> str:
    """A token for alice."""
    head = _part({"alg": algorithm, "typ": "JWT"})
    claims = _part({"sub": "alice", "exp": time.time() + expires_in})
    return f"{head}.{claims}.{_signature(f'{head}.{claims}', secret)}"


def unsigned() -> str:
    """A token that says of itself that it needs no signature."""
    return token(algorithm="none").rpartition(".")[0] + "."


def tampered() -> str:
    """A token for alice whose bearer calls himself mallory."""
    head, _, signature = token().split(".")
    claims = _part({"sub": "mallory", "exp": time.time() + 60})
    return f"{head}.{claims}.{signature}"


def _part(value: object) -> str:
    return _encode(json.dumps(value).encode())


def _signature(text: str, secret: str) -> str:
    return _encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
