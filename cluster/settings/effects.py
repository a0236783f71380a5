"""Under which others a setting has an effect: one table, and the one check that holds what was changed against it."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from learner.config import LearnerSettings, SupervisedSettings
from reward.config import RewardSettings
from rollout.config import Section, TinySettings
from rollout.errors import SettingsError
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.url_settings import UrlSettings

if TYPE_CHECKING:
    from cluster.settings.tree import Settings


@dataclass(frozen=True, slots=True)
class Condition:
    """Nothing reads the settings called `names`, parted by spaces, unless `met`.

    without: in words, what is so where it is not met; without a `met`, that of `surroundings` under which it is not.
    stays_in_files: a file tells of a whole experiment, and may keep what this run leaves unused; a flag means this run.
    """

    names: str
    without: str
    met: Callable[["Settings"], bool] | None = None
    stays_in_files: bool = False

    def is_met(self, settings: "Settings", surroundings: Collection[str] = ()) -> bool:
        return self.without not in surroundings if self.met is None else self.met(settings)


def _all(section: str, model: type[Section], but: str = "") -> str:
    return " ".join(f"{section}.{name}" for name in model.model_fields if name not in but.split())


SCHEDULE = "steps lr lr_warmup_steps schedule final_lr_ratio"
BOTH_STAGES = "weight_decay max_grad_norm token_budget activation_checkpointing compile"
ANY_LOSS = f"{SCHEDULE} {BOTH_STAGES} loss passes aggregation entropy_coef mask_truncated"
STAGE_1 = _all("supervised", SupervisedSettings, but="steps")
STAGE_2 = _all("learner", LearnerSettings, but=f"steps {BOTH_STAGES}")
CLIP = "learner.surrogate learner.eps_low learner.eps_high learner.dual_clip"
REFERENCE = (
    "learner.kl_estimator learner.kl_weighted learner.kl_in learner.kl_target learner.reference_path learner.reference_every"
)
OF_A_SERVER = _all("retriever", UrlSettings)
OF_AN_INDEX = f"{_all('retriever', RetrieverSettings, but=' '.join(['mode', *UrlSettings.model_fields]))} retriever.mode"
OF_VECTORS = (
    "retriever.path retriever.query retriever.max_tokens retriever.dtype retriever.normalize retriever.query_prompt "
    "retriever.passage_prompt retriever.slice_passages retriever.batch_size"
)
OF_MIXTURE = "retriever.candidates retriever.lexical retriever.scale retriever.lexical_weight"
SAMPLING = "rollout.group_size rollout.temperature rollout.top_p cluster.max_staleness"
OF_RAY = (
    "cluster.samplers cluster.min_samplers cluster.max_samplers cluster.sampler_resource cluster.sampler_label cluster.rewards "
    "cluster.sampler_cpus cluster.learner_cpus cluster.reward_cpus cluster.sampler_gpus cluster.learner_gpus "
    "cluster.start_deadline_s cluster.call_deadline_s cluster.dashboard_port retriever.index_actors"
)


def _evaluates(s: "Settings") -> bool:
    return s.data.train is None or s.data.valid is not None  # without data it is the demo's


def _searches(s: "Settings") -> bool:
    return s.data.train is None or s.data.passages is not None or s.retriever.url is not None


def _samples(s: "Settings") -> bool:
    return any(stage.sampled for stage in s.stages())


OF_A_POLICY = (
    Condition("policy.max_passage_tokens", "policy.n_context 0", lambda s: s.policy.n_context > 0),
    Condition("policy.passage_template", "policy.n_context 0", lambda s: s.policy.n_context > 0, stays_in_files=True),
    Condition("eval_reading", "policy.n_context 0", lambda s: s.policy.n_context > 0 or not s.eval_reading),
    Condition(f"{OF_AN_INDEX} {OF_A_SERVER}", "policy.n_context 0", lambda s: s.policy.n_context > 0),
    Condition(_all("retriever", UrlSettings, but="url"), "retriever.url null", lambda s: s.retriever.url is not None),
    Condition(OF_AN_INDEX, "retriever.url", lambda s: s.retriever.url is None),
    Condition("eval_reading", "retriever.url", lambda s: s.retriever.url is None or not s.eval_reading),
    Condition(OF_VECTORS, "retriever.mode lexical", lambda s: s.retriever.used_mode != "lexical"),
    Condition(OF_MIXTURE, "a retriever.mode that is no hybrid", lambda s: s.retriever.used_mode == "hybrid"),
    Condition("data.too_long", "data.max_prompt_tokens null", lambda s: s.data.max_prompt_tokens is not None),
    Condition("eval_temperature", "eval_samples 0", lambda s: s.eval_samples > 0),
    Condition(
        "cluster.min_samplers cluster.max_samplers", "a number of cluster.samplers", lambda s: s.cluster.samplers == "auto"
    ),
    Condition("cluster.dashboard_port", "RAY_ADDRESS", stays_in_files=True),
    Condition("cluster.dashboard_port", "a Ray job", stays_in_files=True),
)
OF_TRAINING = (
    *OF_A_POLICY,
    Condition("data.valid data.passages retriever.url", "data.train null", lambda s: s.data.train is not None),
    Condition("data.passages data.shard_passages", "retriever.url", lambda s: s.retriever.url is None),
    Condition(_all("policy.tiny", TinySettings), "policy.path", lambda s: s.policy.path is None),
    Condition("policy.lora.alpha", "policy.lora.rank 0", lambda s: s.policy.lora.rank > 0),
    Condition(f"data.query data.shard_passages {OF_AN_INDEX}", "data.passages null", _searches),
    Condition("eval_reading", "data.passages null", lambda s: _searches(s) or not s.eval_reading),
    Condition("eval_every", "data.valid null", lambda s: _evaluates(s) or s.eval_every == 0),
    Condition("eval_reading", "data.valid null", lambda s: _evaluates(s) or not s.eval_reading),
    Condition("patience eval_samples", "data.valid null", _evaluates),
    Condition("eval_limit", "data.valid null", _evaluates, stays_in_files=True),
    Condition("patience", "eval_every 0", lambda s: s.eval_every > 0),
    Condition(
        STAGE_1, "policy.path and no supervised.steps", lambda s: s.policy.path is None or s.supervised.steps is not None
    ),
    Condition(STAGE_1, "supervised.steps 0", lambda s: s.supervised_steps > 0, stays_in_files=True),
    Condition("supervised.final_lr_ratio", "supervised.schedule constant", lambda s: s.supervised.schedule != "constant"),
    Condition(
        f"{STAGE_2} {SAMPLING} rollout.prompts_per_step rollout.dynamic_sampling patience",
        "learner.steps 0",
        lambda s: s.learner.steps > 0,
        stays_in_files=True,
    ),
    Condition("learner.final_lr_ratio", "learner.schedule constant", lambda s: s.learner.schedule != "constant"),
    Condition(
        f"{_all('learner', LearnerSettings, but=ANY_LOSS)} {SAMPLING}", "learner.loss sft", lambda s: s.learner.loss != "sft"
    ),
    Condition(CLIP, "learner.importance none", lambda s: s.learner.algorithm().importance != "none"),
    Condition(
        CLIP,
        "learner.correction and learner.passes 1, where the ratio stays 1",
        lambda s: s.learner.correction == "none" or s.learner.passes > 1,
    ),
    Condition("learner.dual_clip", "learner.surrogate cispo", lambda s: s.learner.algorithm().surrogate == "clip"),
    Condition(REFERENCE, "learner.kl_coef 0", lambda s: s.learner.needs_reference()),
    Condition("learner.kl_weighted", "learner.kl_in reward", lambda s: s.learner.kl_in == "loss"),
    Condition(
        "learner.baseline learner.scale_rewards learner.kl_in",
        "learner.reward_aggregation normalize_then_sum",
        lambda s: s.learner.reward_aggregation == "sum_then_normalize",
    ),
    Condition("learner.overlong_penalty", "learner.overlong_buffer 0", lambda s: s.learner.overlong_buffer > 0),
    Condition(
        "learner.correction_level learner.correction_cap", "learner.correction none", lambda s: s.learner.correction != "none"
    ),
    Condition(
        "policy.response_template",
        "no stage on gold answers",
        lambda s: any(not stage.sampled for stage in s.stages()),
        stays_in_files=True,
    ),
    Condition(
        _all("reward", RewardSettings),
        "data.valid null and no stage that samples",
        lambda s: _evaluates(s) or _samples(s),
        stays_in_files=True,
    ),
    Condition("cluster.max_staleness", "--local"),
    Condition(OF_RAY, "--local", stays_in_files=True),
    Condition("cluster.stop_grace_s", "a Ray job", stays_in_files=True),
)


def check_effects(settings: "Settings", flags: Collection[str], surroundings: Collection[str] = ()) -> None:
    """Raise SettingsError for a setting of a training run that is not its default and that nothing will read.

    flags: settings that were not read from a file. surroundings: what else is so: --local, a Ray job, RAY_ADDRESS.
    """
    for condition in OF_TRAINING:
        names = condition.names.split()
        _check(condition, (name for name in names if name in flags or not condition.stays_in_files), settings, surroundings)


def check_effects_of_flags(settings: "Settings", flags: Collection[str], surroundings: Collection[str] = ()) -> None:
    """The same for the flags of a command on a finished policy, whose other settings were made for its training."""
    for condition in OF_A_POLICY:
        _check(condition, (name for name in condition.names.split() if name in flags), settings, surroundings)


def idle_in_learner(settings: "Settings") -> set[str]:
    """Settings of that section which others leave without effect, but for a stage that is switched off as a whole."""
    unmet = (each for each in OF_TRAINING if not (each.stays_in_files or each.is_met(settings)))
    return {name.removeprefix("learner.") for condition in unmet for name in condition.names.split()}


def _check(condition: Condition, names: Iterable[str], settings: "Settings", surroundings: Collection[str]) -> None:
    if condition.is_met(settings, surroundings):
        return
    default = type(settings)()
    for name in names:
        value, unset = (attrgetter(name)(each) for each in (settings, default))
        if value != unset:
            remedy = "leave it out" if condition.stays_in_files else f"set it to {_said(unset)}"
            raise SettingsError(f"{name}: {_said(value)} has no effect with {condition.without}; {remedy}, or change that")


def _said(value: object) -> str:
    """As a flag says it."""
    if isinstance(value, tuple):
        return " ".join(map(_said, value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
