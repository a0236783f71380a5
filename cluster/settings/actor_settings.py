"""Settings of the actors: how many, what each takes, how long a run waits for them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from rollout.config import Amount, NonNegative, Positive, Section
from rollout.setting_tags import ModelCard, ReadBy

EVALUATION = ReadBy("evaluate")
Seconds = Annotated[float, Field(gt=0)]


def key_and_value(label: str) -> str:
    if not all(label.partition("=")):
        raise ValueError("give KEY=VALUE, as in 'ray start --labels'")
    return label


Label = Annotated[str, AfterValidator(key_and_value)]


class ClusterSettings(Section):
    samplers: Annotated[Positive | Literal["auto"], EVALUATION] = Field(
        2, description="SamplerActors; auto: as many as fit, following the nodes that join and leave"
    )
    min_samplers: Annotated[Positive, EVALUATION] = Field(1, description="with samplers auto: at least so many")
    max_samplers: Annotated[Positive | None, EVALUATION] = Field(None, description="with samplers auto: at most so many")
    sampler_resource: Annotated[str | None, EVALUATION] = Field(
        None, description="custom Ray resource of which each sampler takes 1, so that nodes decide how many they run"
    )
    sampler_label: Annotated[Label | None, EVALUATION] = Field(
        None, description="KEY=VALUE: samplers run only on nodes with this label"
    )
    rewards: Annotated[Positive, EVALUATION] = Field(2, description="RewardActors")
    max_staleness: Annotated[NonNegative, ModelCard()] = Field(
        0,
        description="updates that a response may lag behind; 0: on-policy, deterministic; 1: sampling and learning overlap",
    )
    threads: Annotated[Positive | None, EVALUATION] = Field(
        None, description="torch threads of an actor; default: 1 a sampler, all for the learner"
    )
    sampler_cpus: Annotated[Amount, EVALUATION] = Field(1.0, description="CPUs that Ray sets aside for a sampler")
    learner_cpus: Amount = Field(1.0, description="CPUs that Ray sets aside for the learner")
    reward_cpus: Annotated[Amount, EVALUATION] = Field(0.5, description="CPUs that Ray sets aside for a reward actor")
    sampler_gpus: Annotated[Amount | None, EVALUATION] = Field(
        None, description="GPUs of a sampler; default: an equal share of what the learner leaves, at most 1"
    )
    learner_gpus: Amount | None = Field(None, description="GPUs of the learner; default: 1, or half if there is only one")
    start_deadline_s: Annotated[Seconds, EVALUATION] = Field(300.0, description="seconds an actor may take to start")
    call_deadline_s: Annotated[Seconds, EVALUATION] = Field(900.0, description="seconds a call to an actor may take")
    stop_grace_s: Seconds = Field(
        300.0, description="seconds a run that is told to stop may take to save; in a Ray job RAY_JOB_STOP_WAIT_TIME_S says it"
    )
    max_failed_prompts: NonNegative = Field(
        8, description="prompts that may fail, each three times by itself, before the run stops"
    )
    dashboard_port: Annotated[Annotated[int, Field(gt=0, lt=1 << 16)] | None, EVALUATION] = Field(
        None, description="dashboard port of a Ray started here; default: a free one"
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> "ClusterSettings":
        if self.max_samplers is not None and self.max_samplers < self.min_samplers:
            raise ValueError(f"max_samplers {self.max_samplers} is below min_samplers {self.min_samplers}; raise it")
        return self

    @property
    def fewest_samplers(self) -> int:
        return self.min_samplers if self.samplers == "auto" else self.samplers
