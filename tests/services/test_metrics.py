"""Metrics in memory."""

from __future__ import annotations

import math

import pytest

from wasm_middleware import limits
from wasm_middleware.abi.enums import MetricType
from wasm_middleware.proxy_wasm.ports import MetricSample, StoreFull
from wasm_middleware.services.metrics import BUCKETS, MemoryMetrics


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


def test_nothing_can_be_added() -> None:
    metrics = MemoryMetrics()
    metric = metrics.define("p", MetricType.COUNTER, "name")

    assert metrics.increment(metric, 0)
    assert metrics.get(metric) == 0


@pytest.mark.parametrize(
    ("kind", "recorded", "added", "value"),
    [
        (MetricType.COUNTER, (1 << 64) - 1, 0, (1 << 64) - 1),
        (MetricType.COUNTER, (1 << 64) - 1, 3, 2),
        (MetricType.GAUGE, (1 << 64) - 5, 0, -5),
        (MetricType.GAUGE, (1 << 64) - 5, 6, 1),
        (MetricType.GAUGE, (1 << 63) - 1, 1, -(1 << 63)),
        (MetricType.GAUGE, 1 << 63, -1, (1 << 63) - 1),
    ],
)
def test_values_wrap_at_64_bits(kind: MetricType, recorded: int, added: int, value: int) -> None:
    metrics = MemoryMetrics()
    metric = metrics.define("p", kind, "name")
    metrics.record(metric, recorded)
    metrics.increment(metric, added)

    assert metrics.get(metric) == value
    assert [sample.value for sample in metrics.samples()] == [value]


def test_a_histogram_only_observes() -> None:
    metrics = MemoryMetrics()
    metric = metrics.define("p", MetricType.HISTOGRAM, "name")
    assert metrics.record(metric, 10)

    with pytest.raises(ValueError, match="histogram"):
        metrics.increment(metric, 1)

    with pytest.raises(ValueError, match="histogram"):
        metrics.get(metric)


def test_a_histogram_counts_what_it_observes() -> None:
    metrics = MemoryMetrics()
    metric = metrics.define("p", MetricType.HISTOGRAM, "name")

    for value in (0, 1, 2, 5, 6, 3_600_000, 3_600_001, (1 << 64) - 1):
        metrics.record(metric, value)

    (sample,) = metrics.samples()
    counts = dict(sample.buckets)
    assert sample.value == 14 + 7_200_001 + (1 << 64) - 1
    assert (counts[0.5], counts[1], counts[5], counts[10]) == (1, 2, 4, 5)
    assert (counts[1_800_000], counts[3_600_000], counts[math.inf]) == (5, 6, 8)


def test_samples_tell_all_there_is() -> None:
    metrics = MemoryMetrics()
    assert metrics.samples() == []
    metrics.record(metrics.define("b", MetricType.COUNTER, "requests"), 2)
    metrics.record(metrics.define("a", MetricType.GAUGE, "busy"), 3)
    metrics.define("b", MetricType.HISTOGRAM, "sizes")
    before = metrics.samples()
    metrics.record(metrics.define("b", MetricType.COUNTER, "requests"), 5)

    assert before[:2] == [
        MetricSample("b", MetricType.COUNTER, "requests", 2),
        MetricSample("a", MetricType.GAUGE, "busy", 3),
    ]
    assert before[2] == MetricSample(
        "b", MetricType.HISTOGRAM, "sizes", 0, tuple((bound, 0) for bound in BUCKETS)
    )
    assert metrics.samples()[0].value == 7


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
