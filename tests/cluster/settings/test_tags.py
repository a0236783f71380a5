from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from cluster.settings.tree import Settings, read_by
from cluster.training.resume_checks import FIXED
from launch import COMMANDS
from rollout.config import RolloutSettings, Section
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.url_settings import UrlSettings
from rollout.setting_tags import ModelCard, ReadBy, tagged

OF_AN_INDEX = [name for name in RetrieverSettings.model_fields if name not in (*UrlSettings.model_fields, "index_actors")]
OF_A_SERVER = [f"retriever.{name}" for name in UrlSettings.model_fields]
OF_A_POLICY = [
    *("data.query", "data.language", "data.max_prompt_tokens", "data.too_long"),
    *("policy.path", "policy.n_context", "policy.max_passage_tokens"),
    *("policy.system_prompt", "policy.prompt_template", "policy.passage_template", "policy.chat_template_args"),
    *("policy.template_date", "policy.thinking"),
    *(f"retriever.{name}" for name in OF_AN_INDEX),
    "rollout.max_new_tokens",
]
OF_SEARCH = ["data.cache", "data.shard_passages"]
OF_EVALUATION_ALONE = [
    *("reward.f1", "reward.rouge", "reward.bleu", "reward.mode", "reward.extra"),
    *("cluster.samplers", "cluster.min_samplers", "cluster.max_samplers", "cluster.sampler_resource", "cluster.sampler_label"),
    *("cluster.rewards", "cluster.threads", "cluster.sampler_cpus", "cluster.reward_cpus", "cluster.sampler_gpus"),
    *("eval_samples", "eval_temperature", "eval_reading", "retriever.index_actors"),
    *("cluster.start_deadline_s", "cluster.call_deadline_s", "cluster.dashboard_port"),
]


def test_every_reader_of_a_setting_is_a_command() -> None:
    readers = {command.partition(" ")[0] for _, tag in tagged(Settings, ReadBy) for command in tag.commands}
    assert readers == {"chat", "evaluate", "export", "retrieve"} and readers < set(COMMANDS)


def test_commands_read_what_changes_a_finished_policys_replies() -> None:
    assert read_by("export") == OF_A_POLICY
    assert set(read_by("chat --sample")) == {"rollout.temperature", "rollout.top_p"}
    server = OF_A_SERVER
    assert set(read_by("chat")) == {*OF_A_POLICY, *server, *OF_SEARCH, "policy.dtype", *read_by("chat --sample")}
    of_an_index = {f"retriever.{name}" for name in OF_AN_INDEX if name != "query"}
    assert set(read_by("retrieve")) == {"data.language", *OF_SEARCH, *of_an_index}
    assert set(read_by("evaluate")) == {*OF_A_POLICY, *server, *OF_SEARCH, "policy.dtype", *OF_EVALUATION_ALONE}


def test_a_resumed_run_keeps_where_and_what_it_began_with() -> None:
    assert FIXED == ("run_dir", "seed", "data", "policy", "retriever")


def test_a_sections_tag_is_that_of_its_settings_but_for_those_that_have_their_own() -> None:
    class Inner(Section):
        plain: int = 0
        own: Annotated[int, Field(ge=0), ModelCard(always=True)] = 0
        other: Annotated[int, ReadBy("chat")] = 0

    class Outer(Section):
        untold: Inner = Inner()
        told: Annotated[Inner, ModelCard()] = Inner()
        number: Annotated[int, ModelCard()] = Field(0, description="a number")

    always, now_and_then = ModelCard(always=True), ModelCard()
    assert dict(tagged(Outer, ModelCard)) == {
        "untold.own": always,
        "told.plain": now_and_then,
        "told.own": always,
        "told.other": now_and_then,
        "number": now_and_then,
    }


def test_other_values_are_validated_together_with_those_that_stay() -> None:
    assert RolloutSettings(top_p=0.5).with_values(group_size=1) == RolloutSettings(top_p=0.5, group_size=1)
    with pytest.raises(ValidationError, match="greater than 0"):
        RolloutSettings().with_values(group_size=0)
    with pytest.raises(ValidationError, match="rollout.group_size: 1 response a prompt"):
        Settings().with_values(rollout=RolloutSettings(group_size=1))
