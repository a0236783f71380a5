"""Settings by what they are for: those that a command reads, and those of a run that differ from the defaults."""

from cluster.settings.tree import Settings
from cluster.settings.values import by_name
from rollout.config import PolicySettings
from rollout.policy.families import FAMILIES
from rollout.policy.family_t5 import T5
from rollout.setting_tags import ReadBy, Reader, tagged


def read_by(reader: Reader) -> list[str]:
    """Dotted names of what a command, with whatever options of its own, reads of a policy's settings."""
    tags = tagged(Settings, ReadBy)
    return [name for name, tag in tags if any(reader in (command, command.partition(" ")[0]) for command in tag.commands)]


def changed(settings: Settings) -> list[str]:
    """Dotted names of what differs from the defaults. A template that its model's family has by default does not."""
    used, default = by_name(settings.as_used()), by_name(Settings().as_used())
    of_family = {f"policy.{name}" for name in T5.templates if _is_of_family(settings.policy, name)}
    return [name for name, value in used.items() if value != default[name] and name not in of_family]


def _is_of_family(policy: PolicySettings, name: str) -> bool:
    """Without `policy.path` the model is a T5; which family another is of, only its files would tell: any will do."""
    families = (T5,) if policy.path is None else FAMILIES
    return getattr(policy, name) in {templates[name] for family in families for templates in family.all_templates}
