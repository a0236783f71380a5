"""The families that are trained; a new one is a file beside `family_t5.py` and its name in this tuple."""

from transformers import PretrainedConfig

from rollout.errors import PolicyError
from rollout.policy.family import Family
from rollout.policy.family_causal import CAUSAL
from rollout.policy.family_t5 import T5

FAMILIES: tuple[Family, ...] = (T5, CAUSAL)


def family_of(config: PretrainedConfig) -> Family:
    """Raises PolicyError for a model that none of them trains."""
    for family in FAMILIES:
        if config.model_type in family.model_types:
            return family
    trained = " or a ".join(family.name for family in FAMILIES)
    raise PolicyError(f"policy {config.name_or_path}: is of type {config.model_type!r}; give a {trained}")
