"""Where upstreams are: their URLs, the hosts that plugins may name, and the CAs to trust.

An upstream is a server, as Envoy's clusters are: the path comes from the plugin's `:path`. So a
URL has no path of its own; a base path would be put before a path that was written without it.
A socket is written as nginx, gunicorn and gRPC have it: `unix:/run/auth.sock`.

A URL may hold a password, though none is taken: no message shows what stands before an `@`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import SplitResult, urlsplit

from wasm_middleware.config.environment import REFERENCE_PATTERN
from wasm_middleware.config.fields import CONTROL, Kind
from wasm_middleware.config.problems import Loc, Mistake, Problem, expected
from wasm_middleware.config.source import Source
from wasm_middleware.errors import Diagnostic

__all__ = ["Address", "address", "ca_problem", "check_upstreams", "host_ports"]

Scheme = Literal["http", "https", "unix"]

_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}
_EXAMPLE: Final = "write http://127.0.0.1:9000"
#: As DNS has it, and with the underscores of container names.
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_HOST_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
#: What an editor can tell without reading as closely.
_URL_PATTERN: Final = r"^(https?://[^/?#@\s]+/?|unix:.+)$"


@dataclass(frozen=True, slots=True)
class Address:
    """A server: a host and a port, or a socket in the file system."""

    scheme: Scheme
    #: In lower case, IPv6 without brackets; empty for a socket.
    host: str = ""
    port: int = 0
    #: The socket; None where there is a host.
    path: Path | None = None

    @property
    def authority(self) -> str:
        """The host and the port; empty for a socket."""
        if self.path is not None:
            return ""

        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path is not None else f"{self.scheme}://{self.authority}"


def address() -> Kind:
    """The URL of a server; becomes an `Address`."""
    schema = {"type": "string", "pattern": _URL_PATTERN}
    return Kind(_address, {"anyOf": [schema, {"type": "string", "pattern": REFERENCE_PATTERN}]})


def host_ports() -> Kind:
    """A list of `host:port`; becomes a set of addresses: https for port 443, http for others."""
    item = {"type": "string", "pattern": f"^[^/@\\s]+:[0-9]+$|{REFERENCE_PATTERN}"}
    return Kind(_host_ports, {"type": "array", "items": item})


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value

    if not isinstance(value, str):
        raise expected("a URL", value, _EXAMPLE)

    if CONTROL.search(value) or value != value.strip():
        raise _wrong("{url} holds a space or a control character", value)

    if value.startswith("unix:"):
        return _socket(value)

    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise _wrong("{url} has no valid host and port", value, _EXAMPLE) from None

    _check_parts(parts, value)
    scheme = cast("Scheme", parts.scheme)
    return Address(scheme, _host(parts.hostname or "", value), port or _PORTS[scheme])


def _socket(value: str) -> Address:
    path = value.removeprefix("unix:")

    if path.startswith("//"):
        path = path[2:]  # unix:///run/x.sock, as gRPC also has it

        if not path.startswith("/"):
            raise _wrong("{url} has a host", value, "write unix:/run/auth.sock")

    if not path:
        raise _wrong("{url} has no path", value, "write unix:/run/auth.sock")

    # nginx takes an HTTP path behind a second colon.
    if ":" in path:
        raise _wrong("{url} has a : in its path", value, "the path of a request is the plugin's")

    return Address("unix", path=Path(path))


def _check_parts(parts: SplitResult, value: str) -> None:
    if parts.scheme not in _PORTS:
        raise _wrong("{url} does not begin with http://, https:// or unix:", value, _EXAMPLE)

    if "@" in parts.netloc:
        hint = "remove them; a plugin sends them in a header of its own"
        raise _wrong("{url} holds a user or a password", value, hint)

    if parts.netloc.lower() == "unix:":
        raise _wrong("{url} is nginx's form of a socket", value, "write unix:/run/auth.sock")

    if parts.path not in ("", "/") or parts.query or parts.fragment or value[-1] in "?#":
        raise _wrong("{url} has a path", value, "remove it; the path is the plugin's :path")

    if parts.port == 0:
        raise _wrong("{url} has the port 0", value)


def _host(host: str, value: str) -> str:
    if not host:
        raise _wrong("{url} has no host", value, _EXAMPLE)

    if ":" in host:
        try:
            found = ipaddress.IPv6Address(host)
        except ValueError:
            raise _wrong("{url} has no valid host and port", value, _EXAMPLE) from None

        if found.scope_id is not None:
            raise _wrong("{url} has an address with a zone", value, "use one without")

        return str(found)

    if not _HOST.fullmatch(host):
        raise _wrong("{url} has no valid host", value, "an international name begins with xn--")

    return host.lower()


def _host_ports(value: object) -> frozenset[Address]:
    if isinstance(value, frozenset):
        return value

    if not isinstance(value, list | tuple):
        raise expected("a list such as [api.example.com:80]", value)

    problems, found = [], set()

    for index, item in enumerate(value):
        try:
            found.add(_host_port(item))
        except Mistake as mistake:
            problems += [problem.at(index) for problem in mistake.problems]

    if problems:
        raise Mistake(*problems)

    return frozenset(found)


def _host_port(value: object) -> Address:
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None

    if match is None:
        seen = f"…@{str(value).rpartition('@')[2]}" if "@" in str(value) else value
        hint = "name each host with its port" if "*" in str(value) else "write api.example.com:80"
        raise expected("a host and a port", seen, hint)

    scheme: Scheme = "https" if int(match[1]) == _PORTS["https"] else "http"
    return _address(f"{scheme}://{value}")


def _wrong(message: str, value: str, hint: str = "") -> Mistake:
    """A problem with a URL, in which `{url}` stands for it; what may be a password is cut out."""
    before, at, host = value.rpartition("@")
    scheme = before[: before.find("://") + 3] if "://" in before else ""
    seen = f"{scheme}…@{host}" if at else value
    return Mistake(Problem(message.replace("{url}", "{seen}"), hint, seen))


def check_upstreams(source: Source, *, check_files: bool) -> Iterator[Diagnostic]:
    """Report upstreams whose name or CA is of no use."""
    upstreams = source.values.get("upstreams")

    for name, entry in upstreams.items() if isinstance(upstreams, Mapping) else ():
        loc: Loc = ("upstreams", name)

        if not name or CONTROL.search(name):
            message = "an upstream's name is text without control characters"
            yield source.problem(loc, Problem(message, at_key=True))

        if isinstance(entry, Mapping) and isinstance(entry.get("ca_file"), str):
            yield from _check_ca(source, (*loc, "ca_file"), entry, check_files=check_files)


def _check_ca(
    source: Source, loc: Loc, entry: Mapping[str, object], *, check_files: bool
) -> Iterator[Diagnostic]:
    url, path = entry.get("url"), str(entry["ca_file"])

    if isinstance(url, str) and not url.startswith("https:"):
        yield source.diagnostic(loc, "has no effect", "write https:// in the url, or remove it")
    elif check_files and path and not CONTROL.search(path):
        problem = ca_problem(source.folder / path)

        if problem is not None:
            yield source.problem(loc, problem)


def ca_problem(path: Path) -> Problem | None:
    """What is wrong with a file of CA certificates, None if nothing is."""
    seen = os.fspath(path)

    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return Problem("{seen} holds no certificate", "expected one or more in PEM form", seen)
    except FileNotFoundError:
        return Problem("no such file: {seen}", "", seen)
    except OSError as error:
        return Problem(f"can't read {{seen}}: {error.strerror}", "", seen)

    return None
