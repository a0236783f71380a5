"""The whole tree of settings and the checks that no single section can make."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cluster.settings.actor_settings import EVALUATION, ClusterSettings
from cluster.settings.effects import idle_in_learner
from cluster.settings.values import by_name
from learner.config import LearnerSettings, Stage, SupervisedSettings
from reward.config import RewardSettings
from rollout.config import DataSettings, NonNegative, PolicySettings, Positive, RolloutSettings, Section
from rollout.policy.templates import DEFAULT_TEMPLATES, FUSED
from rollout.retrieval.reading import Reading
from rollout.retrieval.settings import RetrieverSettings
from rollout.setting_tags import Fixed, ModelCard, ReadBy, Reader, tagged
from rollout.types import Draws

STEPS_FROM_SCRATCH = 1000
TrackerName = Literal["wandb", "mlflow"]


def names(listed: object) -> object:
    """A flag's `wandb,mlflow` as the list that it is in YAML."""
    return [name.strip() for name in listed.split(",")] if isinstance(listed, str) else listed


class Settings(Section):
    """Everything a run is told; frozen, validated before Ray starts, and written to config.yaml as used."""

    run_dir: Annotated[Path | None, Fixed()] = Field(
        None, description="folder of the run; default runs/DATE-NAME-XXXX; absolute inside a Ray job"
    )
    seed: Annotated[int, Field(ge=0, lt=1 << 63), Fixed(), ModelCard(always=True)] = Field(
        0, description="seed of weights, order, sampling and demo"
    )
    data: Annotated[DataSettings, Fixed()] = DataSettings()
    policy: Annotated[PolicySettings, Fixed(), ModelCard()] = PolicySettings()
    retriever: Annotated[RetrieverSettings, Fixed()] = RetrieverSettings()
    supervised: Annotated[SupervisedSettings, ModelCard()] = SupervisedSettings()
    rollout: Annotated[RolloutSettings, ModelCard()] = RolloutSettings()
    reward: Annotated[RewardSettings, EVALUATION, ModelCard()] = RewardSettings()
    learner: Annotated[LearnerSettings, ModelCard()] = LearnerSettings()
    cluster: ClusterSettings = ClusterSettings()
    eval_every: NonNegative = Field(200, description="steps between held-out evaluations; 0: only between and after the stages")
    eval_limit: Positive | None = Field(400, description="held-out examples to evaluate; null: all")
    eval_samples: Annotated[NonNegative, EVALUATION] = Field(
        0, description="replies drawn to a held-out prompt beside the greedy one, for avg@n and best@n; 0: none"
    )
    eval_temperature: Annotated[float, Field(gt=0), EVALUATION] = Field(
        1.0, description="temperature of these draws, from all of the distribution"
    )
    eval_reading: Annotated[tuple[Reading, ...] | None, BeforeValidator(names), EVALUATION] = Field(
        None,
        description="none, gold, random, lexical: held-out figures with such passages in place of those found, at every "
        "evaluation, [] at none; default: at the end of a run, where gold passages are known",
    )
    checkpoint_every: NonNegative = Field(100, description="steps between checkpoints; 0: only after the stages")
    keep_checkpoints: Positive = Field(2, description="newest checkpoints to keep, beside the best one")
    patience: Annotated[NonNegative, ModelCard()] = Field(
        0, description="stop after so many evaluations of stage 2 without a better reward; 0: never"
    )
    trackers: Annotated[tuple[TrackerName, ...], BeforeValidator(names)] = Field(
        (), description="wandb, mlflow: where the run's numbers go beside TensorBoard's files"
    )

    @model_validator(mode="after")
    def _something_is_trained(self) -> "Settings":
        if not self.stages():
            raise ValueError("learner.steps: 0 leaves nothing to train without supervised.steps; give one, or use evaluate")
        return self

    @model_validator(mode="after")
    def _groups_can_be_compared(self) -> "Settings":
        if self.learner.steps > 0 and self.learner.compares_within_group() and self.rollout.group_size < 2:
            raise ValueError("rollout.group_size: 1 response a prompt has no group to be compared with; give 2 or more")
        return self

    @model_validator(mode="after")
    def _groups_that_are_replaced_would_teach_nothing(self) -> "Settings":
        if self.rollout.dynamic_sampling and not self.learner.compares_within_group():
            loss, baseline = self.learner.loss, self.learner.algorithm().baseline
            cause = f"learner.loss {loss} and learner.baseline {baseline} learn from groups of equal rewards too"
            raise ValueError(f"rollout.dynamic_sampling: {cause}; set it to 0 or compare within groups")
        return self

    @model_validator(mode="after")
    def _some_advantages_are_dropped(self) -> "Settings":
        ratio, size = self.learner.top_k_ratio, self.rollout.group_size
        if ratio < 1 and self.learner.loss != "sft" and self.learner.algorithm().kept_count(size) == size:
            raise ValueError(f"learner.top_k_ratio: {ratio} keeps all {size} responses of a group; lower it or leave it out")
        return self

    @model_validator(mode="after")
    def _overlong_responses_exist(self) -> "Settings":
        buffer, longest = self.learner.overlong_buffer, self.rollout.max_new_tokens
        if buffer >= longest:
            raise ValueError(f"learner.overlong_buffer: {buffer} tokens must be fewer than rollout.max_new_tokens, {longest}")
        return self

    @model_validator(mode="after")
    def _adapters_have_a_model(self) -> "Settings":
        lora = self.policy.lora
        if lora.rank and self.policy.path is None:
            raise ValueError("policy.lora.rank: adapters need a pretrained model; give policy.path")
        return self

    @property
    def draws(self) -> Draws:
        return Draws(self.eval_samples, self.eval_temperature)

    @property
    def index_parts(self) -> int:
        """Actors on Ray that hold the index; 0 where every node holds it, or nothing is searched here."""
        searched = self.data.passages is not None and self.retriever.url is None and self.policy.n_context > 0
        return self.retriever.index_actors if searched else 0

    @property
    def supervised_steps(self) -> int:
        if self.supervised.steps is not None:
            return self.supervised.steps
        return 0 if self.policy.path is not None else STEPS_FROM_SCRATCH

    def as_used(self) -> "Settings":
        """The same settings with absolute paths and no default left open: what a run uses, wherever its actors run."""
        return self.with_values(
            data=self.data.with_values(**_absolute_paths(self.data)),
            policy=self.policy.with_values(path=absolute_model(self.policy.path)),
            retriever=self.retriever.with_values(path=absolute_model(self.retriever.path)),
            supervised=self.supervised.with_values(steps=self.supervised_steps),
            learner=self.learner.as_used(idle_in_learner(self)).with_values(
                reference_path=absolute_model(self.learner.reference_path)
            ),
        )

    def stages(self) -> list[Stage]:
        """The stages that have steps, in order."""
        supervised = Stage(
            name="supervised",
            mode="gold",
            first=1,
            steps=self.supervised_steps,
            prompts_per_step=self.supervised.batch_size,
            **_rates(self.supervised),
        )
        rl = Stage(
            name="rl",
            mode="gold" if self.learner.loss == "sft" else "sample",
            first=supervised.last + 1,
            steps=self.learner.steps,
            prompts_per_step=self.rollout.prompts_per_step,
            **_rates(self.learner),
        )
        return [stage for stage in (supervised, rl) if stage.steps]


def read_by(reader: Reader) -> list[str]:
    """Dotted names of what a command, with whatever options of its own, reads of the settings."""
    tags = tagged(Settings, ReadBy)
    return [name for name, tag in tags if any(reader in (command, command.partition(" ")[0]) for command in tag.commands)]


def changed(settings: Settings) -> list[str]:
    """Dotted names of what differs from the defaults. A template that its model's family has by default does not: without
    `policy.path` the model is a T5; which family another is of, only its files would tell: any will do."""
    used, default = by_name(settings.as_used()), by_name(Settings().as_used())
    usual = (FUSED,) if settings.policy.path is None else DEFAULT_TEMPLATES
    of_family = {f"policy.{name}" for name in FUSED if getattr(settings.policy, name) in {each[name] for each in usual}}
    return [name for name, value in used.items() if value != default[name] and name not in of_family]


def _rates(section: SupervisedSettings | LearnerSettings) -> dict[str, Any]:
    """What a stage needs to know of its learning rate."""
    return {name: getattr(section, name) for name in ("lr", "lr_warmup_steps", "schedule", "final_lr_ratio")}


def absolute(path: Path | str) -> Path:
    """Expand `~` and make absolute without checking that the path exists. Unlike pathlib's own, refuses nothing: a loop of
    links, or a home of nobody, is met by whoever opens the file."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def _absolute_paths(data: DataSettings) -> dict[str, object]:
    return {name: _made_absolute(value) for name, value in data if isinstance(value, Path | tuple | dict)}


def _made_absolute(paths: Any) -> Any:
    """A path, several, or a mapping of names to such."""
    if isinstance(paths, dict):
        return {name: _made_absolute(own) for name, own in paths.items()}
    return absolute(paths) if isinstance(paths, Path) else [*map(absolute, paths)]


def absolute_model(model: str | None) -> str | None:
    """A folder's absolute path; a hub name stays."""
    return str(absolute(model)) if model is not None and absolute(model).is_dir() else model
