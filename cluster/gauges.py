"""The series of a run, exported through Ray by the driver alone: what actors count would outlive them on their node."""

import math
from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from cluster.series import PREFIX, SERIES, Value


class Gauges:
    """run: the label that tells this run's series from those of others on the same cluster."""

    def __init__(self, run: str):
        self._metrics: dict[str, Gauge | Counter] = {}
        for series in SERIES:
            kind = Counter if series.is_counter else Gauge
            metric = kind(PREFIX + series.name, series.meaning, (*series.labels, "run"))
            self._metrics[series.name] = metric.set_default_tags({"run": run})

    def show(self, values: Iterable[Value]) -> None:
        """Set gauges, add to counters; what has no value, or none that is finite, is left as it was."""
        for name, labels, value in values:
            if value is None or not math.isfinite(value):
                continue
            metric = self._metrics[name]
            if isinstance(metric, Gauge):
                metric.set(value, labels)
            else:
                metric._record(value, labels)  # inc() refuses 0, without which a first increase goes unseen
