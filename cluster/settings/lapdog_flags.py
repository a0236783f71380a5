"""LAPDOG's and its GRPO patch's flags -> our settings; docs/from-lapdog.md tells of all the others."""

from cluster.settings.flags import Flag
from cluster.settings.values import Values
from rollout.errors import SettingsError


def _words(meaning: Values) -> str:
    return "the same as " + " ".join(f"--{name} {value}" for name, value in meaning.items())


SWITCHES: dict[str, Values] = {
    "reader_rl_learning": {"learner.loss": "reinforce"},
    "use_grpo": {"learner.loss": "grpo"},
}  # the later wins
RENAMED = {
    "grpo_group_size": "rollout.group_size",
    "grpo_kl_coeff": "learner.kl_coef",
    "grpo_top_k_ratio": "learner.top_k_ratio",
    "reference_model_path": "learner.reference_path",
}
GOLD_SCORES: dict[str, Values] = {
    "f1rougebleudist": {"reward.mode": "lapdog"},
    "bleudist": {"reward.f1": 0.0, "reward.rouge": 0.0, "reward.bleu": 1.0},
}
FLAGS = [
    *(Flag(name, _words(meaning), is_switch=True) for name, meaning in SWITCHES.items()),
    *(Flag(name, f"the same as --{setting}") for name, setting in RENAMED.items()),
    Flag("gold_score_mode", "; ".join(f"{score}: {_words(meaning)}" for score, meaning in GOLD_SCORES.items())),
]


def translated(given: Values) -> Values:
    """Flags with LAPDOG's under our names; our own name wins. Raises SettingsError for a score we do not pay."""
    values: Values = {}
    for name, meaning in SWITCHES.items():
        values |= meaning if name in given else {}
    values |= {setting: given[name] for name, setting in RENAMED.items() if name in given}
    if (score := given.get("gold_score_mode")) is not None:
        if score not in GOLD_SCORES:
            known = " or ".join(GOLD_SCORES)
            raise SettingsError(f"gold_score_mode: {score!r} is no reward of responses; give {known}, see docs/from-lapdog.md")
        values |= GOLD_SCORES[score]
    lapdogs = {flag.name for flag in FLAGS}
    return values | {name: value for name, value in given.items() if name not in lapdogs}
