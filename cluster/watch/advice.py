"""What a run's own figures tell of a mistake in its settings, or of other work on its machines."""

import statistics
from collections import deque
from collections.abc import Callable

from cluster.store.rows import Row
from cluster.watch.monitor import Monitor

EQUAL_STEPS = 5
USUAL_STEPS = 20  # whose median is the usual time
FEWEST_STEPS = 5
SLOW_FACTOR = 5.0


class Advice(Monitor):
    """Each is told once. compares_within_group: groups of equal rewards teach nothing."""

    def __init__(self, compares_within_group: bool, event: Callable[[str], None]):
        self._compares, self._event = compares_within_group, event
        self._equal, self._told_equal, self._told_slow = 0, False, False
        self.rewind(0)

    def rewind(self, step: int) -> None:
        self._equal = 0
        self._stage: str | None = None
        self._seconds: deque[float] = deque(maxlen=USUAL_STEPS)

    def step(self, row: Row) -> None:
        if row["stage"] != self._stage:
            self.rewind(row["step"])
            self._stage = row["stage"]
        self._equal = self._equal + 1 if row["zero_variance"] == 1 else 0
        if self._equal == EQUAL_STEPS and not self._told_equal:
            self._told_equal = True
            so = ", so nothing is learnt" if self._compares else ""
            self._event(
                f"in all groups of {EQUAL_STEPS} steps all rewards were equal{so}; "
                "look at the samples, and at reward.* and rollout.temperature"
            )
        seconds = row["seconds_step"]
        if len(self._seconds) >= FEWEST_STEPS and not row["restarts"] and not self._told_slow:
            usual = statistics.median(self._seconds)
            if seconds > SLOW_FACTOR * usual:
                self._told_slow = True
                self._event(
                    f"step {row['step']} took {seconds:.3g} s, {seconds / usual:.0f} times the usual {usual:.2g} s; "
                    "other work on a machine of the run may be the cause, and is told once"
                )
        self._seconds.append(seconds)
