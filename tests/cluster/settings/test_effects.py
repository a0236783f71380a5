"""Whatever the table of conditions says is so, in the check and at the command line."""

import re
from functools import reduce
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml

from cluster.actors.job import JOB_CONFIG
from cluster.settings.effects import OF_A_POLICY, OF_TRAINING, Condition, check_effects, check_effects_of_flags
from cluster.settings.tree import Settings
from cluster.settings.values import build, fields
from launch import main
from learner.algorithm import PRESETS
from rollout.errors import SettingsError
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.url_settings import UrlSettings

FIELDS = dict(fields(Settings))
DATA = {"data.train": "train.jsonl", "data.valid": "valid.jsonl", "data.passages": "passages.jsonl"}
PRETRAINED = {"policy.path": "t5", "supervised.steps": 4}
SERVED = {"retriever.url": "http://host", "data.passages": None}
OF_AN_INDEX = [name for name in RetrieverSettings.model_fields if name not in (*UrlSettings.model_fields, "index_actors")]
CORRECTED = {"learner.correction": "mask"}
# by what a condition says: settings under which it is not met, and under which it is, beside DATA
UNMET_AND_MET: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "policy.n_context 0": ({"policy.n_context": 0}, {}),
    "retriever.url": (SERVED, {}),
    "retriever.url null": ({}, SERVED),
    "retriever.mode lexical": ({"retriever.mode": "lexical"}, {"retriever.mode": "dense"}),
    "a retriever.mode that is no hybrid": ({"retriever.mode": "dense"}, {"retriever.mode": "hybrid"}),
    "data.max_prompt_tokens null": ({}, {"data.max_prompt_tokens": 64}),
    "eval_samples 0": ({}, {"eval_samples": 4}),
    "a number of cluster.samplers": ({}, {"cluster.samplers": "auto"}),
    "data.train null": ({"data.train": None, "data.valid": None, "data.passages": None}, {}),
    "policy.path": (PRETRAINED, {}),
    "policy.lora.rank 0": (PRETRAINED, PRETRAINED | {"policy.lora.rank": 4}),
    "data.passages null": ({"data.passages": None}, {}),
    "data.valid null": ({"data.valid": None}, {}),
    "eval_every 0": ({"eval_every": 0}, {}),
    "policy.path and no supervised.steps": ({"policy.path": "t5"}, PRETRAINED),
    "supervised.steps 0": ({"supervised.steps": 0}, {}),
    "supervised.schedule constant": ({"supervised.schedule": "constant"}, {}),
    "learner.steps 0": ({"learner.steps": 0}, {}),
    "learner.schedule constant": ({"learner.schedule": "constant"}, {}),
    "learner.loss sft": ({"learner.loss": "sft"}, {}),
    "learner.importance none": ({"learner.importance": "none"}, {}),
    "learner.correction and learner.passes 1, where the ratio stays 1": (CORRECTED, CORRECTED | {"learner.passes": 2}),
    "learner.surrogate cispo": ({"learner.surrogate": "cispo"}, {}),
    "learner.kl_coef 0": ({"learner.kl_coef": 0.0}, {}),
    "learner.kl_in reward": ({"learner.kl_in": "reward"}, {}),
    "learner.reward_aggregation normalize_then_sum": ({"learner.reward_aggregation": "normalize_then_sum"}, {}),
    "learner.overlong_buffer 0": ({}, {"learner.overlong_buffer": 4}),
    "learner.correction none": ({}, CORRECTED),
    "no stage on gold answers": ({"supervised.steps": 0}, {}),
    "data.valid null and no stage that samples": ({"data.valid": None, "learner.loss": "sft"}, {"learner.loss": "sft"}),
    **dict.fromkeys(("--local", "a Ray job", "RAY_ADDRESS"), ({}, {})),
}
NEEDED = {
    "eval_temperature": {"eval_samples": 4},
    "retriever.url": {"data.passages": None},
    **{f"retriever.{name}": SERVED for name in UrlSettings.model_fields if name != "url"},
    **{f"retriever.{name}": {"retriever.mode": "hybrid"} for name in OF_AN_INDEX if name != "mode"},
    "data.too_long": {"data.max_prompt_tokens": 64},
    **dict.fromkeys(("cluster.min_samplers", "cluster.max_samplers"), {"cluster.samplers": "auto"}),
    **dict.fromkeys(("learner.correction_level", "learner.correction_cap"), CORRECTED),
    "learner.overlong_penalty": {"learner.overlong_buffer": 4},
}
OTHER = {
    "data.query": "all",
    "eval_reading": ["gold"],
    "retriever.mode": "hybrid",
    "retriever.url": "http://host",
    "retriever.normalize": "true",
    "retriever.scale": 3.0,
    "retriever.query": "all",
    "policy.passage_template": "{query} {text}",
    "policy.response_template": "so: {answer}",
    "reward.extra": [{"function": "math:sqrt"}],
    "learner.surrogate": "cispo",
    "learner.baseline": "batch",
    "learner.scale_rewards": "batch",
    "learner.eps_low": 0.5,
    "learner.entropy_coef": 0.1,
    "cluster.samplers": 3,
    "cluster.sampler_label": "role=sampler",
}
ALWAYS = {  # whatever the others say
    *("run_dir", "seed", "checkpoint_every", "keep_checkpoints", "trackers", "data.train", "data.language", "data.cache"),
    *("data.max_prompt_tokens", "policy.path", "policy.dtype", "policy.n_context", "policy.prompt_template", "policy.thinking"),
    *("policy.lora.rank", "supervised.steps", "rollout.prompts_per_call", "rollout.max_new_tokens", "learner.steps"),
    *("learner.weight_decay", "learner.max_grad_norm", "learner.token_budget", "learner.activation_checkpointing"),
    *("learner.compile", "cluster.threads", "cluster.max_failed_prompts"),
}
OF_THE_MODELS_FILES = {"policy.system_prompt", "policy.chat_template_args", "policy.template_date"}
CASES = [(condition, name) for condition in OF_TRAINING for name in condition.names.split()]


def other(name: str) -> Any:
    """A value that is not the default, as a flag gives it."""
    if name in OTHER:
        return OTHER[name]
    kinds = [FIELDS[name].annotation, *get_args(FIELDS[name].annotation)]
    if choices := [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]:
        return next(choice for choice in choices if choice != FIELDS[name].default)
    default = FIELDS[name].default
    if isinstance(default, bool):
        return "true"
    return default / 2 if isinstance(default, float) else default + 1 if isinstance(default, int) else "2"


def settings_of(values: dict[str, Any], condition: Condition, name: str) -> dict[str, Any]:
    """With the setting changed, and what it needs to be read but for what the condition tells of."""
    needed = NEEDED.get(name, {})
    names = condition.names.split()
    first = [] if condition.stays_in_files else names[: names.index(name)]  # they would be refused before it
    told = [*condition.without.split(), *first]
    return DATA | values | {name: other(name)} | ({} if set(needed) & set(told) else needed)


def tree_of(values: dict[str, Any]) -> dict[str, Any]:
    """Of dotted names."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        reduce(lambda place, section: place.setdefault(section, {}), sections, tree)[leaf] = value
    return tree


def shown(case: object) -> str:
    return case.without if isinstance(case, Condition) else str(case)


def test_every_setting_has_a_condition_or_is_always_read() -> None:
    told = {name for _, name in CASES}
    assert not told & (ALWAYS | OF_THE_MODELS_FILES)
    assert told | ALWAYS | OF_THE_MODELS_FILES == set(FIELDS)
    assert {condition.without for condition in OF_TRAINING} == set(UNMET_AND_MET)


@pytest.mark.parametrize(("condition", "name"), CASES, ids=shown)
def test_a_setting_is_refused_where_nothing_reads_it(condition: Condition, name: str) -> None:
    unmet, _ = UNMET_AND_MET[condition.without]
    values = {key: None if value is None else str(value) for key, value in settings_of(unmet, condition, name).items()}
    with pytest.raises(SettingsError) as refused:
        check_effects(build(Settings, values), {name}, [condition.without] if condition.met is None else [])
    assert re.fullmatch(refusal(condition, name), str(refused.value))


def refusal(condition: Condition, name: str) -> str:
    remedy = "leave it out" if condition.stays_in_files else "set it to .*"
    return rf"{re.escape(name)}: .+ has no effect with {condition.without}; {remedy}, or change that"


@pytest.mark.parametrize("condition", OF_TRAINING, ids=shown)
def test_a_run_is_refused_that_nothing_would_tell_from_one_without_a_setting(
    condition: Condition,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, *_ = condition.names.split()
    unmet, _ = UNMET_AND_MET[condition.without]
    values = settings_of(unmet, condition, name) | {"run_dir": str(tmp_path / "run")}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree_of(values)))
    flags = ["--config", str(tmp_path / "a.yaml"), *([f"--{name}", str(other(name))] if condition.stays_in_files else [])]
    for variable, without in ((JOB_CONFIG, "a Ray job"), ("RAY_ADDRESS", "RAY_ADDRESS")):
        if condition.without == without:
            monkeypatch.setenv(variable, "{}")
    assert main(["train", *flags, *(["--local"] if condition.without == "--local" else [])]) == 2
    assert re.fullmatch(f"error: {refusal(condition, name)}\n", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("condition", "name"), CASES, ids=shown)
def test_a_setting_is_taken_where_something_reads_it(condition: Condition, name: str) -> None:
    _, met = UNMET_AND_MET[condition.without]
    settings = build(Settings, DATA | NEEDED.get(name, {}) | met | {name: other(name)})
    check_effects(settings, {name})


@pytest.mark.parametrize(("condition", "name"), [case for case in CASES if case[0].stays_in_files], ids=shown)
def test_a_file_may_keep_what_this_run_leaves_unused(condition: Condition, name: str) -> None:
    unmet, _ = UNMET_AND_MET[condition.without]
    check_effects(
        build(Settings, settings_of(unmet, condition, name)), (), [condition.without] if condition.met is None else []
    )


def test_what_says_that_nothing_is_done_needs_nothing() -> None:
    check_effects(build(Settings, {"data.train": "train.jsonl", "eval_every": 0, "eval_reading": "[]"}), {"eval_reading"})


@pytest.mark.parametrize("loss", PRESETS)
def test_a_preset_written_out_leaves_nothing_without_effect(loss: str) -> None:
    written = build(Settings, {"learner.loss": loss}).as_used()
    check_effects(written, ())
    assert written.as_used() == written


def test_a_command_on_a_finished_policy_minds_its_flags_alone() -> None:
    idle = {"policy.n_context": 0, "policy.max_passage_tokens": 64, "learner.loss": "sft", "rollout.temperature": 0.5}
    settings = build(Settings, idle)
    check_effects_of_flags(settings, {"policy.n_context", "rollout.temperature"})
    with pytest.raises(
        SettingsError, match="policy.max_passage_tokens: 64 has no effect with policy.n_context 0; set it to 128"
    ):
        check_effects_of_flags(settings, {"policy.max_passage_tokens"})
    assert set(OF_A_POLICY) < set(OF_TRAINING)
