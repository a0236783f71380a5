"""Which settings of a run differ from the defaults."""

from cluster.settings.flags import by_name
from cluster.settings.tree import Settings
from rollout.config import PolicySettings
from rollout.policy.families import FAMILIES
from rollout.policy.family_t5 import T5


def changed(settings: Settings) -> list[str]:
    """Their dotted names. A template that its model's family has by default is none of them."""
    used, default = by_name(settings.resolved()), by_name(Settings().resolved())
    of_family = {f"policy.{name}" for name in T5.templates if _is_of_family(settings.policy, name)}
    return [name for name, value in used.items() if value != default[name] and name not in of_family]


def _is_of_family(policy: PolicySettings, name: str) -> bool:
    """Without `policy.path` the model is a T5; which family another is of, only its files would tell: any will do."""
    families = (T5,) if policy.path is None else FAMILIES
    return getattr(policy, name) in {templates[name] for family in families for templates in family.all_templates}
