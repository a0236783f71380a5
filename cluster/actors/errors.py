"""What a failed call to an actor means: the actor is lost, its inputs are lost, or it answers with an error of its own."""

from enum import Enum, auto

from ray.exceptions import (
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

from rollout.errors import ClusterError, LapdogError, first_line

ACTOR_LOST = (
    RayActorError,
    OutOfMemoryError,
    NodeDiedError,
    WorkerCrashedError,
    LocalRayletDiedError,
    ActorUnschedulableError,
    RuntimeEnvSetupError,
)


class InputsLost(ClusterError):
    """A call cannot be answered because an object that it was given is gone, with the node or actor that held it."""


class ReplicasLost(ClusterError):
    """Every replica that was given a call died or gave no answer."""


class LearnerLost(ClusterError):
    """The learner died or gave no answer: what it held since the newest checkpoint is gone."""


BY_THE_PROMPT = (RayTaskError, ReplicasLost)  # what a call meets that may be due to one of its prompts


class Meaning(Enum):
    """Of an exception that a call raised."""

    INPUTS_LOST = auto()  # an object that it was given is gone; the actor is well
    REFUSED = auto()  # it answers with a user's mistake
    FAILED = auto()  # it answers with any other error: its device or disk may be broken
    DIED = auto()
    FROZEN = auto()  # our own deadline has passed
    OTHER = auto()  # no answer of an actor: cancelled, or a bug of ours


def meaning_of(error: BaseException) -> Meaning:
    if isinstance(error, ObjectLostError) or (isinstance(error, RayTaskError) and isinstance(error, RayActorError)):
        return Meaning.INPUTS_LOST
    if isinstance(error, RayTaskError):
        return Meaning.REFUSED if isinstance(getattr(error, "cause", None), LapdogError) else Meaning.FAILED
    if isinstance(error, ACTOR_LOST):
        return Meaning.DIED
    return Meaning.FROZEN if isinstance(error, TimeoutError) else Meaning.OTHER


def cause(error: BaseException) -> str:
    """The first line of what an actor met, without Ray's wrapping."""
    if not isinstance(error, RayTaskError):
        return first_line(error)
    met = getattr(error, "cause", error)
    return first_line(met) if isinstance(met, LapdogError) else f"{type(met).__name__}: {first_line(met)}"
