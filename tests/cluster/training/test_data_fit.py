"""What the policy makes of the data, found out before anything is started."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.training.data_fit import fitted
from cluster.training.inputs import Inputs
from rollout.errors import DataError, LapdogError, PolicyError, SettingsError
from rollout.policy.loading import skeleton
from rollout.types import Passage, Prompt
from tests.rollout.tiny import tiny_policy
from tests.rollout.tiny_causal import save_causal

WORDS = "which pet does your boss keep ?"  # all in the tokenizer of words
LONG = " ".join([WORDS] * 16)  # 112 tokens, of 128 positions


def prompt(id: str, question: str = WORDS, answer: str = "a small parrot", passages: tuple[Passage, ...] = ()) -> Prompt:
    return Prompt(id=id, question=question, answers=(answer,), passages=passages)


def fit(folder: Path, train: list[Prompt], valid: list[Prompt] = [], **values: Any) -> Inputs:  # noqa: B006  (is only read)
    settings = build(Settings, {name.replace("__", "."): value for name, value in values.items()})
    settings = settings.model_copy(update={"policy": settings.policy.model_copy(update={"path": str(folder)})})
    inputs = Inputs(train, {"valid": valid} if valid else {}, {"train": "digest"}, "en")
    return fitted(settings, inputs, skeleton(folder, settings.policy))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_causal(tmp_path / "gpt2", "gpt2", chat=False)


def refused(error: type[LapdogError], *arguments: Any, **values: Any) -> str:
    with pytest.raises(error) as refusal:
        fit(*arguments, **values)
    assert "\n" not in str(refusal.value) and "; " in str(refusal.value)
    return str(refusal.value)


def test_what_fits_is_left_as_it_is(model: Path) -> None:
    inputs = fit(model, [prompt("a"), prompt("b")], [prompt("c")])
    assert [p.id for p in inputs.train] == ["a", "b"] and inputs.told == () and inputs.digests == {"train": "digest"}


def test_a_prompt_longer_than_the_positions_is_named(model: Path) -> None:
    message = refused(DataError, model, [prompt("a"), prompt("b", LONG)], rollout__max_new_tokens=32)
    assert message == (
        "data.train: the prompt of example 'b' has 113 tokens, and the model reads 96 beside a response of 32; "
        "give data.max_prompt_tokens 96 and data.too_long drop or cut, or lower policy.n_context"
    )
    assert "data.valid: the prompt of example 'b'" in refused(DataError, model, [prompt("a")], [prompt("b", LONG)])
    assert fit(model, [prompt("b", LONG)], rollout__max_new_tokens=15).told == ()  # 128 in all


def test_passages_count_as_they_are_read(model: Path) -> None:
    story = Passage(id="s", title="trip", text=" ".join(["i love to bake bread"] * 30))
    told = prompt("a", passages=(story, story))
    assert "example 'a' has 266 tokens" in refused(DataError, model, [told])
    assert fit(model, [told], policy__max_passage_tokens=40).told == ()


def test_what_is_too_long_is_dropped_and_told_once_a_file(model: Path) -> None:
    train, valid = [prompt("a", LONG), prompt("b"), prompt("c", LONG)], [prompt("d"), prompt("e", LONG)]
    inputs = fit(model, train, valid, data__max_prompt_tokens=60)
    assert [[p.id for p in prompts] for prompts in inputs.files.values()] == [["b"], ["d"]]
    count = "examples are left out, whose prompts exceed data.max_prompt_tokens 60; the first"
    assert inputs.told == (
        f"data.train: 2 of 3 {count}, 'a' has 113 tokens",
        f"data.valid: 1 of 2 {count}, 'e' has 113 tokens",
    )
    assert "which leaves none" in refused(DataError, model, train[:1], data__max_prompt_tokens=60)
    assert fit(model, train, valid, data__max_prompt_tokens=60, data__too_long="cut").train == train


def test_a_bound_above_the_positions_is_refused(model: Path) -> None:
    message = refused(SettingsError, model, [prompt("a")], data__max_prompt_tokens=97)
    assert message.endswith("rollout.max_new_tokens 32 exceed the model's 128 positions; give 96 or fewer")
    assert "leave no room" in refused(SettingsError, model, [prompt("a")], rollout__max_new_tokens=128)


def test_answers_that_the_model_cannot_say_are_told_and_above_a_fifth_refused(model: Path) -> None:
    train = [prompt(str(i)) for i in range(4)] + [prompt("x", answer="a {red} parrot")]
    assert fit(model, train).told == (
        "1 of 5 gold answers of data.train (20.0%) have characters that the model cannot say; the first is 'a {red} parrot'",
    )
    message = refused(PolicyError, model, train[1:])
    assert message == (
        f"policy {model}: 1 of 4 gold answers of data.train (25.0%) have characters that the model cannot say, "
        "such as 'a {red} parrot'; give a model whose tokenizer has them, such as mT5 or ByT5"
    )
    assert "of data.valid (100.0%)" in refused(PolicyError, model, [prompt("a")], [prompt("b", answer="日本")])


def test_a_policy_from_scratch_says_what_it_was_trained_on_and_is_told_to_grow_otherwise() -> None:
    policy, inputs = tiny_policy(), Inputs([prompt("a", answer="i love to bake .")], {}, {}, "en")
    assert fitted(Settings(), inputs, policy) == inputs
    with pytest.raises(PolicyError, match="raise policy.tiny.vocab_size"):
        fitted(Settings(), replace(inputs, train=[prompt("a", answer="日本")]), policy)
