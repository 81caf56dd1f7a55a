"""The metrics that plugins define, kept in this process's memory.

What may be done with which type is Envoy's `context.cc`: a counter rises, a gauge moves and is set,
a histogram observes. One thing is the specification's: Envoy refuses to add 0 to a counter, which
can be done here. Values are 64 bits and wrap.

A histogram does not keep its observations but counts them, in Envoy's buckets: a plugin says
nothing of its unit or range, and these serve milliseconds as well as bytes.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from wasm_middleware import limits
from wasm_middleware.abi.enums import MetricType
from wasm_middleware.proxy_wasm.ports import MetricSample, StoreFull

#: Envoy's default buckets: the upper bounds, each inclusive.
BUCKETS: Final = (
    *(0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4),
    *(6e4, 3e5, 6e5, 1.8e6, 3.6e6, math.inf),
)

#: proxy-wasm-cpp-host keeps the type in the low bits of an id; so can a person who reads a log.
_TYPE_BITS = 2
_WRAP = 1 << 64
_SIGN = 1 << 63


@dataclass(slots=True)
class _Metric:
    """One metric; the value of a histogram is the sum of what it observed."""

    plugin: str
    kind: MetricType
    name: str
    value: int = 0
    #: Observations in each bucket, of a histogram.
    counts: list[int] = field(default_factory=list)

    def add(self, delta: int) -> None:
        self.set(self.value + delta)

    def set(self, value: int) -> None:
        low = -_SIGN if self.kind is MetricType.GAUGE else 0
        self.value = (value - low) % _WRAP + low

    def observe(self, value: int) -> None:
        self.counts[bisect_left(BUCKETS, value)] += 1
        self.value += value

    def sample(self) -> MetricSample:
        buckets = tuple(zip(BUCKETS, accumulate(self.counts), strict=False))
        return MetricSample(self.plugin, self.kind, self.name, self.value, buckets)


class MemoryMetrics:
    """Fulfils `ports.Metrics`."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, MetricType, str], int] = {}
        self._metrics: dict[int, _Metric] = {}
        self._counts: dict[str, int] = {}

    def define(self, plugin: str, kind: MetricType, name: str) -> int:
        key = (plugin, kind, name)

        if key not in self._ids:
            count = self._counts.get(plugin, 0)

            if count >= limits.MAX_METRICS_PER_PLUGIN:
                raise StoreFull(f"it has defined {limits.MAX_METRICS_PER_PLUGIN} metrics already")

            self._counts[plugin] = count + 1
            metric = (len(self._ids) + 1) << _TYPE_BITS | kind
            counts = [0] * len(BUCKETS) if kind is MetricType.HISTOGRAM else []
            self._ids[key] = metric
            self._metrics[metric] = _Metric(plugin, kind, name, counts=counts)

        return self._ids[key]

    def record(self, metric: int, value: int) -> bool:
        found = self._metrics.get(metric)

        if found is None:
            return False

        match found.kind:
            case MetricType.GAUGE:
                found.set(value)
            case MetricType.COUNTER:
                found.add(value)
            case MetricType.HISTOGRAM:
                found.observe(value)

        return True

    def increment(self, metric: int, delta: int) -> bool:
        found = self._metrics.get(metric)

        if found is None:
            return False

        if found.kind is MetricType.HISTOGRAM:
            raise ValueError("a histogram can't be incremented")

        if found.kind is MetricType.COUNTER and delta < 0:
            raise ValueError("a counter never goes down")

        found.add(delta)
        return True

    def get(self, metric: int) -> int | None:
        found = self._metrics.get(metric)

        if found is None:
            return None

        if found.kind is MetricType.HISTOGRAM:
            raise ValueError("a histogram has no one value")

        return found.value

    def samples(self) -> Sequence[MetricSample]:
        return [metric.sample() for metric in self._metrics.values()]
