"""The metrics that plugins define, kept in this process's memory."""

from __future__ import annotations

from dataclasses import dataclass

from wasm_middleware import limits
from wasm_middleware.abi.enums import MetricType
from wasm_middleware.proxy_wasm.ports import StoreFull

#: proxy-wasm-cpp-host keeps the type in the low bits of an id; so can a person who reads a log.
_TYPE_BITS = 2


@dataclass(slots=True)
class Metric:
    """One metric; the value of a histogram is the sum of what it observed."""

    plugin: str
    kind: MetricType
    name: str
    value: int = 0


class MemoryMetrics:
    """Fulfils `ports.Metrics`: a counter only rises, a gauge moves, a histogram observes."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, MetricType, str], int] = {}
        self._metrics: dict[int, Metric] = {}
        self._counts: dict[str, int] = {}

    def define(self, plugin: str, kind: MetricType, name: str) -> int:
        key = (plugin, kind, name)

        if key not in self._ids:
            count = self._counts.get(plugin, 0)

            if count >= limits.MAX_METRICS_PER_PLUGIN:
                raise StoreFull(f"it has defined {limits.MAX_METRICS_PER_PLUGIN} metrics already")

            self._counts[plugin] = count + 1
            metric = (len(self._ids) + 1) << _TYPE_BITS | kind
            self._ids[key] = metric
            self._metrics[metric] = Metric(plugin, kind, name)

        return self._ids[key]

    def record(self, metric: int, value: int) -> bool:
        found = self._metrics.get(metric)

        if found is None:
            return False

        if found.kind is MetricType.GAUGE:
            found.value = value
        else:
            found.value += value

        return True

    def increment(self, metric: int, delta: int) -> bool:
        found = self._metrics.get(metric)

        if found is None:
            return False

        if found.kind is MetricType.HISTOGRAM:
            raise ValueError("a histogram can't be incremented")

        if found.kind is MetricType.COUNTER and delta < 0:
            raise ValueError("a counter never goes down")

        found.value += delta
        return True

    def get(self, metric: int) -> int | None:
        found = self._metrics.get(metric)

        if found is None:
            return None

        if found.kind is MetricType.HISTOGRAM:
            raise ValueError("a histogram has no one value")

        return found.value
