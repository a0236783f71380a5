"""What the policy makes of the data, found out before anything is started."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.settings.tree import Settings
from cluster.settings.values import build
from cluster.training.data_fit import fitted, fitted_prompts
from cluster.training.inputs import Inputs
from rollout.errors import DataError, LapdogError, PolicyError, SettingsError
from rollout.policy.loading import skeleton, with_family_templates
from rollout.types import Passage, Prompt
from tests.rollout.tiny import tiny_policy
from tests.rollout.tiny_causal import save_causal

WORDS = "which pet does your boss keep ?"  # all in the tokenizer of words
LONG = " ".join([WORDS] * 16)  # 112 tokens, of 128 positions


def prompt(id: str, question: str = WORDS, answer: str = "a small parrot", passages: tuple[Passage, ...] = ()) -> Prompt:
    return Prompt(id=id, question=question, answers=(answer,), passages=passages)


def fit(folder: Path, train: list[Prompt], valid: list[Prompt] = [], **values: Any) -> Inputs:  # noqa: B006  (is only read)
    settings = build(Settings, {name.replace("__", "."): value for name, value in values.items()})
    worded = with_family_templates(str(folder), settings.policy.model_copy(update={"path": str(folder)}))
    settings = settings.model_copy(update={"policy": worded})
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


@pytest.mark.parametrize("named", [1, 2, 5])
def test_a_text_that_a_template_names_several_times_counts_as_often(named: int, model: Path) -> None:
    short = ". ? . ? . ? . ? . ?"  # 10 tokens, 19 bytes
    asked, told = prompt("a", short), prompt("b", "?", passages=(Passage(id="s", title="pet", text=short),))
    for example, wording, tokens in (
        (asked, {"policy__prompt_template": "{question} " * named}, 10 * named),
        (told, {"policy__passage_template": "{title} {text} " * named}, 11 * named + 2),
    ):
        assert fit(model, [example], data__max_prompt_tokens=tokens, **wording).told == ()
        message = refused(DataError, model, [example], data__max_prompt_tokens=tokens - 1, **wording)
        assert f"{example.id!r} has {tokens} tokens, which leaves none" in message


def test_of_a_t5_the_question_stands_in_each_row_as_often_as_its_template_names_it(tmp_path: Path) -> None:
    tiny_policy().save(tmp_path)
    example = prompt("a", " ".join([". ?"] * 15), passages=(Passage(id="s", title="", text="."),))
    values = {"policy.prompt_template": "{question}", "policy.passage_template": "{query} " * 5 + "{text}"}
    settings = build(Settings, values)
    [[row]] = skeleton(tmp_path, settings.policy).contexts([example.question], [example.passages or ()])
    for longest, kept in ((len(row), True), (len(row) - 1, False)):
        bound = settings.model_copy(update={"data": settings.data.with_values(max_prompt_tokens=longest)})
        with contextlib.nullcontext() if kept else pytest.raises(DataError, match=f"'a' has {len(row)} tokens"):
            fitted(bound, Inputs([example], {}, {}, "en"), skeleton(tmp_path, settings.policy))


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


def test_of_one_file_no_more_is_refused_than_is_asked(model: Path) -> None:
    settings = Settings().model_copy(update={"policy": with_family_templates(str(model), Settings().policy)})
    prompts, policy = [prompt("a", answer="日本"), prompt("b", LONG)], skeleton(model, settings.policy)
    bound = settings.model_copy(update={"data": settings.data.with_values(max_prompt_tokens=96)})
    kept, texts = fitted_prompts(bound, "x.jsonl", prompts, policy, most_unsayable=1.0)
    assert kept == prompts[:1] and "x.jsonl: 1 of 2 examples are left out" in texts[0]
    assert texts[1:] == [
        "1 of 1 gold answers of x.jsonl (100.0%) have characters that the model cannot say; the first is '日本'"
    ]
    with pytest.raises(DataError, match="^x.jsonl: the prompt of example 'b' has 113 tokens"):
        fitted_prompts(settings, "x.jsonl", prompts, policy)


def test_a_policy_from_scratch_says_what_it_was_trained_on_and_is_told_to_grow_otherwise() -> None:
    policy, inputs = tiny_policy(), Inputs([prompt("a", answer="i love to bake .")], {}, {}, "en")
    assert fitted(Settings(), inputs, policy) == inputs
    with pytest.raises(PolicyError, match="raise policy.tiny.vocab_size"):
        fitted(Settings(), replace(inputs, train=[prompt("a", answer="日本")]), policy)
