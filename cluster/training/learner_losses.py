"""A learner that is lost again and again ends the run."""

from cluster.actors.errors import LearnerLost
from rollout.errors import ClusterError


class LearnerLosses:
    """Counts losses since the last new step; `most` of them end the run."""

    def __init__(self, most: int) -> None:
        self._most, self._furthest = most, 0
        self._since: list[LearnerLost] = []

    def reached(self, step: int) -> None:
        if step > self._furthest:
            self._furthest = step
            self._since.clear()

    def add(self, error: LearnerLost) -> None:
        """Raises ClusterError if there are too many."""
        self._since.append(error)
        if len(self._since) >= self._most:
            times = f"{self._most} times without getting beyond step {self._furthest}"
            raise ClusterError(f"{self._since[0]}, {times}; see its log in the dashboard") from error
