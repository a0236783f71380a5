"""Settings of the reward: what a response is paid for."""

import re
from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from rollout.config import Amount, Positive, Section
from rollout.setting_tags import ModelCard

METRICS = ("f1", "rougeL", "bleu")


class ExtraReward(Section):
    """A user's own reward; `reward.extra.LoadedReward` tells how it is called."""

    function: str = Field(description="the function or class to import, written module:name")
    weight: float = Field(1.0, description="weight of its value in the reward")
    name: str | None = Field(None, pattern=r"^[\w.-]+$", description="logged as extra/NAME; default: the function's own name")
    args: dict[str, JsonValue] = Field({}, description="keyword arguments of the function, or of the class when it is made")
    batch: bool = Field(False, description="called once for several groups instead of once for each")
    concurrency: Positive = Field(8, description="most calls of an async function at a time, per actor")
    gpus: Amount = Field(0.0, description="GPUs of each actor of its own; above 0 it gets such actors")
    actors: Positive | None = Field(
        None, description="actors of its own, beside the reward actors; default: 1 with gpus, otherwise none"
    )

    @field_validator("function")
    @classmethod
    def _names_module_and_function(cls, value: str) -> str:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", value):
            raise ValueError(f"must look like module:function, got {value!r}")
        return value

    @property
    def short_name(self) -> str:
        return self.name or self.function.partition(":")[2]

    @property
    def column(self) -> str:
        """Under which its values are logged: no column of ours begins so."""
        return f"extra/{self.short_name}"

    @property
    def own_pool(self) -> bool:
        """Whether it is measured by actors of its own instead of the reward actors."""
        return self.gpus > 0 or self.actors is not None

    @property
    def pool_size(self) -> int:
        return self.actors or 1


class RewardSettings(Section):
    f1: Annotated[float, ModelCard(always=True)] = Field(1.0, description="weight of F1")
    rouge: Annotated[float, ModelCard(always=True)] = Field(1.0, description="weight of ROUGE-L")
    bleu: Annotated[float, ModelCard(always=True)] = Field(1.0, description="weight of BLEU")
    mode: Literal["sum", "lapdog"] = Field("sum", description="sum: parts in [0, 1]; lapdog: the score of the LAPDOG paper")
    extra: tuple[ExtraReward, ...] = Field((), description="your own reward functions, added to the sum")

    @field_validator("extra")
    @classmethod
    def _has_distinct_names(cls, value: tuple[ExtraReward, ...]) -> tuple[ExtraReward, ...]:
        taken: set[str] = set()
        for extra in value:
            if extra.column in taken:
                remedy = f"give {extra.function!r} a name of its own, as in name: {extra.short_name}2"
                raise ValueError(f"two functions are logged as {extra.column!r}: {remedy}")
            taken.add(extra.column)
        return value

    @model_validator(mode="after")
    def _something_is_rewarded(self) -> "RewardSettings":
        if not self.weights():
            raise ValueError("f1: 0 like all weights, so no response is better than another; raise f1, rouge, bleu or extra")
        return self

    def weights(self) -> dict[str, float]:
        """Weight of every part that counts, by the name it is logged under."""
        own = {"f1": self.f1, "rougeL": self.rouge, "bleu": self.bleu}
        return {name: weight for name, weight in (own | {e.column: e.weight for e in self.extra}).items() if weight}
