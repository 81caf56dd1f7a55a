"""Envoy itself: its configuration for all cases, its process, and what its plugins log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.e2e.envoy.shapes import Case, module
from tests.e2e.serving import HOST, wait_until

_TYPE = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_TYPE}.filters.http"
_START = 60.0
_STOP = 10.0

#: Each line of its log: the level, and the message with its line breaks escaped.
LOG_FORMAT = "%l\t%_"


class Envoy:
    """A running Envoy, one listener a case; `stop` ends it."""

    def __init__(
        self, folder: Path, binary: Path, cases: Iterable[Case], ports: Mapping[str, int]
    ) -> None:
        self._admin = folder / "envoy.admin"
        self.log = folder / "envoy.log"
        config = folder / "envoy.json"
        config.write_text(json.dumps(configuration(cases, ports)), encoding="utf-8")
        levels = ("-l", "warn", "--component-log-level", "wasm:trace")
        options = ("--concurrency", "1", "--disable-hot-restart", "--log-format", LOG_FORMAT)
        admin = ("--admin-address-path", str(self._admin))

        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(binary), "-c", str(config), *levels, *options, *admin],
                env={**os.environ, "HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> int:
        """End it, by force if it does not end by itself; returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

        try:
            return self._process.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def wait(self) -> dict[str, int]:
        """The ports, once it listens."""

        def ready() -> bool:
            return self._process.poll() is not None or self._is_ready()

        if not wait_until(ready, within=_START) or self._process.poll() is not None:
            log = self.log.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"Envoy did not start:\n{log[-4000:]}")

        listeners = json.loads(self._ask("/listeners?format=json"))["listener_statuses"]
        return {
            listener["name"]: listener["local_address"]["socket_address"]["port_value"]
            for listener in listeners
        }

    def _is_ready(self) -> bool:
        try:
            return self._ask("/ready") == b"LIVE\n"
        except OSError:
            return False

    def _ask(self, path: str) -> bytes:
        address = self._admin.read_text(encoding="utf-8").strip()

        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body


def configuration(cases: Iterable[Case], ports: Mapping[str, int]) -> dict[str, object]:
    """One listener and one cluster a case; what Envoy adds by itself is off where it can be."""
    cases = list(cases)
    clusters = [case.id for case in cases] + ["upstream", "refused"]
    return {
        "admin": {"address": _address(0)},
        "static_resources": {
            "listeners": [_listener(case) for case in cases],
            "clusters": [_cluster(name, ports[name]) for name in clusters],
        },
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, object]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _listener(case: Case) -> dict[str, object]:
    route = {"match": {"prefix": ""}, "route": {"cluster": case.id, "timeout": "2s"}}
    host = {"name": "all", "domains": ["*"], "routes": [route]}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "case",
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "route_config": {"name": "case", "virtual_hosts": [host]},
        "delayed_close_timeout": "0.2s",
        "http_filters": [_wasm(case), _router()],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": case.id,
        "address": _address(0),
        "filter_chains": [{"filters": [network]}],
    }


def _wasm(case: Case) -> dict[str, object]:
    text = "type.googleapis.com/google.protobuf.StringValue"
    config = {
        "name": case.id,
        "configuration": {"@type": text, "value": case.script},
        "vm_config": {
            "vm_id": case.id,
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": str(module(case.plugin))}},
        },
    }
    wasm = {"@type": f"{_HTTP}.wasm.v3.Wasm", "config": config}
    return {"name": "envoy.filters.http.wasm", "typed_config": wasm}


def _router() -> dict[str, object]:
    router = {"@type": f"{_HTTP}.router.v3.Router", "suppress_envoy_headers": True}
    return {"name": "envoy.filters.http.router", "typed_config": router}
