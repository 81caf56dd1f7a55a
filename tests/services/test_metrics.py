"""Metrics in memory."""

from __future__ import annotations

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import MetricType
from wasm_middleware.proxy_wasm.ports import StoreFull
from wasm_middleware.services.metrics import MemoryMetrics


def test_ids_tell_their_type() -> None:
    metrics = MemoryMetrics()
    ids = [metrics.define("p", kind, "name") for kind in MetricType]

    assert [metric & 3 for metric in ids] == [0, 1, 2]
    assert len({0, *ids}) == 4
    assert [metrics.define("p", kind, "name") for kind in MetricType] == ids


def test_plugins_do_not_share_metrics() -> None:
    metrics = MemoryMetrics()
    one = metrics.define("one", MetricType.COUNTER, "name")
    two = metrics.define("two", MetricType.COUNTER, "name")
    metrics.increment(one, 5)

    assert (metrics.get(one), metrics.get(two)) == (5, 0)


def test_a_counter_never_goes_down() -> None:
    metrics = MemoryMetrics()
    metric = metrics.define("p", MetricType.COUNTER, "name")
    assert metrics.increment(metric, 2)
    assert metrics.record(metric, 3)

    with pytest.raises(ValueError, match="never goes down"):
        metrics.increment(metric, -1)

    assert metrics.get(metric) == 5


def test_a_gauge_is_set_and_moved() -> None:
    metrics = MemoryMetrics()
    metric = metrics.define("p", MetricType.GAUGE, "name")
    metrics.record(metric, 10)
    metrics.increment(metric, -15)

    assert metrics.get(metric) == -5


def test_a_histogram_only_observes() -> None:
    metrics = MemoryMetrics()
    metric = metrics.define("p", MetricType.HISTOGRAM, "name")
    assert metrics.record(metric, 10)

    with pytest.raises(ValueError, match="histogram"):
        metrics.increment(metric, 1)

    with pytest.raises(ValueError, match="histogram"):
        metrics.get(metric)


def test_unknown_metrics() -> None:
    metrics = MemoryMetrics()

    assert not metrics.record(4, 1)
    assert not metrics.increment(4, 1)
    assert metrics.get(4) is None


def test_a_plugin_has_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_METRICS_PER_PLUGIN", 2)
    metrics = MemoryMetrics()
    metrics.define("one", MetricType.COUNTER, "a")
    metrics.define("one", MetricType.GAUGE, "a")

    with pytest.raises(StoreFull):
        metrics.define("one", MetricType.COUNTER, "b")

    assert metrics.define("one", MetricType.COUNTER, "a")
    assert metrics.define("two", MetricType.COUNTER, "b")
