"""Settings of the reward: what a response is paid for."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from rollout.config import Section
from rollout.setting_tags import ModelCard

METRICS = ("f1", "rougeL", "bleu")


class ExtraReward(Section):
    """A user's own reward function; `Scorer` tells how it is called."""

    function: str = Field(description="the function to import, written module:function")
    weight: float = Field(1.0, description="weight of its value in the reward")

    @field_validator("function")
    @classmethod
    def _names_module_and_function(cls, value: str) -> str:
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", value):
            raise ValueError(f"must look like module:function, got {value!r}")
        return value

    @property
    def name(self) -> str:
        """Under which its values are logged: no column of ours begins so."""
        return "extra/" + self.function.partition(":")[2]


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
            if extra.name in taken:
                raise ValueError(f"two functions are logged as {extra.name!r}: rename {extra.function!r}")
            taken.add(extra.name)
        return value

    def weights(self) -> dict[str, float]:
        """Weight of every part that counts, by the name it is logged under."""
        own = {"f1": self.f1, "rougeL": self.rouge, "bleu": self.bleu}
        return {name: weight for name, weight in (own | {e.name: e.weight for e in self.extra}).items() if weight}
