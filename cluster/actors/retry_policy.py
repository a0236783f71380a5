"""How often a run tries again, how long it waits, when it gives up: one frozen object that pools, learner and pipeline share.

`python -m cluster.actors.retry_policy` prints the table of docs/recovery.md.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from cluster.settings.actor_settings import ClusterSettings
from cluster.settings.markdown import table


def _rule(value: float, about: str) -> Any:
    return field(default=value, metadata={"about": about})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Attempts are counts; what ends in _s is seconds; the two deadlines of actors are settings."""

    start_deadline_s: float = _rule(300.0, "an actor may take to start (`cluster.start_deadline_s`)")
    call_deadline_s: float = _rule(900.0, "a call may take until its actor counts as frozen (`cluster.call_deadline_s`)")
    call_attempts: int = _rule(3, "actors are given a call of several prompts, or what it lost on the way is made again")
    prompt_attempts: int = _rule(3, "times a prompt is tried by itself before it is left out")
    start_attempts: int = _rule(3, "starts may fail in a row while there is no actor of that kind")
    learner_losses: int = _rule(5, "learners may be lost without getting beyond the furthest step")
    first_pause_s: float = _rule(0.5, "pause after the second loss in a row; it doubles with each further one")
    longest_pause_s: float = _rule(30.0, "and is never longer than this")
    excluded_s: float = _rule(60.0, "new actors keep away from a node that lost one, or where one did not start")
    elsewhere_s: float = _rule(30.0, "they wait for a place on another node, before that one will do")
    slow_start_s: float = _rule(60.0, "after which a start that is still under way is told of")
    make_room_s: float = _rule(30.0, "learner, reward or index actors wait for a place before a sampler makes room for them")
    look_s: float = _rule(2.0, "between two looks at nodes, queues and actors")
    message_s: float = _rule(5.0, "between two messages to the dashboard's list of jobs, and for one to be taken")
    hang_factor: float = _rule(2.0, "times the slowest call so far: staleness waits no longer for a call of that age")
    probe_s: float = _rule(5.0, "a head at RAY_ADDRESS may take to answer")
    tracker_close_s: float = _rule(60.0, "trackers may hold the end of a run")
    broken_close_s: float = _rule(2.0, "they may hold the end of a run that failed")

    @classmethod
    def of(cls, settings: ClusterSettings) -> "RetryPolicy":
        return cls(start_deadline_s=settings.start_deadline_s, call_deadline_s=settings.call_deadline_s)

    def attempts(self, prompts: int) -> int:
        """Actors that a call may be tried on: 1 for a lone prompt, whose attempts `RolloutClient` counts."""
        return 1 if prompts == 1 else self.call_attempts

    def pause_s(self, losses: int) -> float:
        """Seconds to wait after so many losses in a row: 0, then `first_pause_s`, twice that, ..."""
        return min(self.longest_pause_s, self.first_pause_s * 2.0 ** (losses - 1)) if losses > 0 else 0.0


def documented() -> str:
    """The table of docs/recovery.md."""
    rows = []
    for rule in fields(RetryPolicy):
        unit = " s" if rule.name.endswith("_s") else ""
        rows.append((rule.name, f"{rule.default:g}{unit}", rule.metadata["about"]))
    return table(["", "value", "what it bounds"], rows)


if __name__ == "__main__":
    print(documented(), end="")
