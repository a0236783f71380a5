"""What Prometheus sees of a run while it goes on, through Ray."""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from ray.util.metrics import Counter, Gauge

from cluster.actors.ports import Port
from cluster.actors.roles import RoleKind
from cluster.actors.tasks import Event, cancel_quietly, log_failure
from cluster.store.failed_prompts import FailedPrompts
from cluster.store.rows import Row
from cluster.watch.monitor import Ending, Monitor
from cluster.watch.series import PREFIX, Value, all_series, is_counter, of_evaluation, of_step


class Prometheus(Monitor):
    """Exported by the driver alone: what actors count would outlive them on their node. That queues and actors are no longer
    looked at is an event.

    run: the label that tells this run's series from those of others on the same cluster. queues: prompts by the queue they are
    in, as of now.
    """

    def __init__(
        self,
        run: str,
        ports: Mapping[RoleKind, Port],
        queues: Callable[[], Mapping[str, int]],
        failed_prompts: FailedPrompts,
        look_s: float,
        event: Event,
    ):
        self._look_s = look_s
        self._ports, self._queues = ports, queues
        self._failed_prompts, self._event = failed_prompts, event
        self._counted = dict.fromkeys(ports, 0)  # restarts
        self._looking: asyncio.Task[None] | None = None
        self._metrics: dict[str, Gauge | Counter] = {}
        for series in all_series():
            kind = Counter if is_counter(series.name) else Gauge
            metric = kind(PREFIX + series.name, series.meaning, (*series.labels, "run"))
            self._metrics[series.name] = metric.set_default_tags({"run": run})

    async def start(self) -> None:
        self._looking = asyncio.create_task(self._look())
        log_failure(self._looking, "queues and actors are no longer exported", self._event)
        self._show([("last_step_timestamp_seconds", {}, time.time()), ("ends_total", {}, 0)])

    def step(self, row: Row) -> None:
        self._show(of_step(row))
        self._show(self._now())

    async def evaluation(self, row: Row) -> None:
        self._show(of_evaluation(row))

    def phase(self, name: str, seconds: float) -> None:
        self._show([("phase_seconds_total", {"phase": name}, seconds)])

    async def finish(self, ending: Ending) -> None:
        self._show([("ends_total", {}, 1)])

    def close(self) -> None:
        if self._looking is not None:
            cancel_quietly(self._looking)

    async def _look(self) -> None:
        while True:
            self._show(self._now())
            await asyncio.sleep(self._look_s)

    def _show(self, values: Iterable[Value]) -> None:
        """Set gauges, add to counters; what has no value, or none that is finite, is left as it was."""
        for name, labels, value in values:
            if value is None or not math.isfinite(value):
                continue
            metric = self._metrics[name]
            if isinstance(metric, Gauge):
                metric.set(value, labels)
            else:
                metric._record(value, labels)  # inc() refuses 0, without which a first increase goes unseen

    def _now(self) -> Iterator[Value]:
        for role, port in self._ports.items():
            restarts = max(0, port.restarts)
            yield "restarts_total", {"role": role}, restarts - self._counted[role]
            self._counted[role] = restarts
            yield from (("actors", {"role": role, "state": state}, count) for state, count in port.states.items())
        yield from (("queue_prompts", {"queue": queue}, count) for queue, count in self._queues().items())
        yield from (
            ("failed_prompts", {"file": file}, len(self._failed_prompts.ids(file))) for file in self._failed_prompts.counts
        )
