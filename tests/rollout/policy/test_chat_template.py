"""What a chat template says: where replies end, which values it reads, what it does with roles, which day it is."""

from dataclasses import replace
from datetime import date, datetime

import numpy as np
import pytest
import torch

from learner.config import LearnerSettings
from learner.learner import Learner
from rollout.config import PolicySettings, RolloutSettings
from rollout.errors import PolicyError, SettingsError
from rollout.policy.chat_template import ChatTemplate
from rollout.policy.loading import load_policy, skeleton, with_family_templates
from rollout.policy.reply import ReplyReader, without_thoughts
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Sampler
from rollout.types import Prompt, Version
from tests.learner.examples import SUPERVISED
from tests.rollout import tiny_chat
from tests.rollout.tiny import tiny_policy
from tests.rollout.tiny_chat import EOS, byte_tokenizer, chat_policy, save_chat


def ending(template, own_tokens=tiny_chat.OWN_TOKENS):
    """In words."""
    tokenizer = byte_tokenizer(template, own_tokens)
    found = ChatTemplate(tokenizer, PolicySettings()).ending()
    return tokenizer.decode(found.taught), tokenizer.convert_ids_to_tokens(found.heeded), found.texts


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (tiny_chat.CHATML, "<|im_end|>"),
        (tiny_chat.QWEN3, "<|im_end|>"),
        (tiny_chat.LLAMA3, "<|eot_id|>"),
        (tiny_chat.GEMMA, "<end_of_turn>"),
        (tiny_chat.PHI3, "<|end|>"),  # and not the end of text that follows it
        (tiny_chat.GLM4, "<|user|>"),  # nothing but the next turn ends one
        (tiny_chat.CHATML.replace("<|im_end|>\n", " {{ eos_token }}"), EOS),
    ],
)
def test_the_first_token_of_its_own_after_a_reply_ends_it(template, end):
    assert ending(template) == (end, [end], ())


def test_an_ending_of_several_tokens_is_taught_whole_and_heeded_as_text():
    assert ending(tiny_chat.CHATML, own_tokens=()) == ("<|im_end|>", [], ("<|im_end|>",))
    assert ending(tiny_chat.WORDS) == ("\n[DONE]", [], ("[DONE]",))
    assert ending(tiny_chat.WORDS.replace("[DONE]", "[DONE]{{ eos_token }}")) == ("\n[DONE]", [EOS], ("[DONE]",))


def test_where_a_template_writes_no_ending_the_next_turn_is_heeded_and_the_end_token_taught(tmp_path):
    assert ending(tiny_chat.TURNS) == ("", [], ("\nUSER:",))
    policy = chat_policy(tmp_path, tiny_chat.TURNS)
    assert policy.target("ok").tolist() == policy.tokenizer("ok" + EOS)["input_ids"]


def test_the_templates_ending_comes_before_the_end_token_which_is_heeded_too(tmp_path):
    policy = chat_policy(tmp_path, tiny_chat.CHATML)
    assert policy.tokenizer.convert_ids_to_tokens(policy.end_tokens) == ["<|im_end|>", EOS]
    assert policy.target("ok").tolist() == policy.tokenizer("ok<|im_end|>")["input_ids"]


@pytest.mark.parametrize(
    ("template", "own_tokens", "answer"),
    [
        (tiny_chat.CHATML, tiny_chat.OWN_TOKENS, "the beach ."),
        (tiny_chat.CHATML, (), "the beach ."),
        (tiny_chat.WORDS, (), "two\nlines"),
        (tiny_chat.GLM4, tiny_chat.OWN_TOKENS, "the beach ."),
    ],
)
def test_a_policy_that_learnt_an_answer_says_it_and_stops(template, own_tokens, answer, tmp_path):
    policy = chat_policy(tmp_path, template, own_tokens, n_context=0)
    rollout = RolloutSettings(max_new_tokens=48, prompts_per_step=1)
    learner = Learner(policy, LearnerSettings(lr=1e-2), rollout, PolicySettings(), {})
    learner.begin(replace(SUPERVISED, steps=80, lr=1e-2))
    prompts, sampler = [Prompt(id="q", question="where ?", answers=(answer,))], Sampler(policy, Retriever("all", 0), rollout, 0)
    for step in range(1, 81):
        learner.update(sampler.sample(prompts, "gold", Version(0, 0)).groups, step)
    [reply] = sampler.sample(prompts, "greedy", Version(0, 1)).groups[0].responses
    assert reply.text == answer and reply.finished
    assert reply.token_ids.tolist() == policy.target(answer).tolist()


def test_text_ends_where_the_ending_begins_however_it_is_spelt(tmp_path):
    policy = chat_policy(tmp_path, tiny_chat.TURNS)
    ids = np.array(policy.tokenizer("well yes\nUSER: and now")["input_ids"], np.int32)
    assert policy._reader.texts([ids, ids[:8]]) == ["well yes", "well yes"]
    assert policy._reader.ended(torch.from_numpy(np.stack([ids[:13], ids[1:14]])).long()).tolist() == [False, True]


def test_an_end_token_that_decoding_shows_is_not_in_the_text(tmp_path):
    policy = chat_policy(tmp_path, tiny_chat.CHATML)
    target = policy.target("yes")
    assert policy.tokenizer.decode(target, skip_special_tokens=True) == "yes<|im_end|>"
    assert policy._reader.texts([target]) == ["yes"]


def test_a_model_without_a_template_ends_as_its_tokenizer_says(tmp_path):
    policy = chat_policy(tmp_path, None)
    assert policy.tokenizer.convert_ids_to_tokens(policy.end_tokens) == [EOS]
    assert not policy._reader.stops_at_text and tiny_policy().end_tokens == [1]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("<think>hm</think>\n\nyes", "yes"),
        ("so <think>a</think>and<think>b</think> so", "so and so"),
        ("<think>cut in the mid", ""),
        ("yes <think>but", "yes"),
        ("begun before</think> yes", "yes"),
        ("1 < 2 > 0", "1 < 2 > 0"),
        ("<thinking>no tag</thinking>", "<thinking>no tag</thinking>"),
    ],
)
def test_thoughts_are_cut_from_the_text(said, shown):
    assert without_thoughts(said).strip() == shown


def test_a_prompt_that_opens_a_thought_leaves_nothing_of_one_that_is_not_closed():
    assert without_thoughts("still at it", opened=True) == ""
    assert without_thoughts("done</think>yes", opened=True) == "yes"


def replies(policy, *texts):
    return policy._reader.texts([np.array(policy.tokenizer(text)["input_ids"], np.int32) for text in texts])


def test_thinking_is_stripped_unless_it_is_kept(tmp_path):
    said = "<think>hm</think>yes<|im_end|>", "hm</think>yes", "hm"
    assert replies(chat_policy(tmp_path / "a", tiny_chat.REASONER), *said) == ["yes", "yes", ""]
    assert replies(chat_policy(tmp_path / "b", tiny_chat.QWEN3), *said) == ["yes", "yes", "hm"]
    kept = chat_policy(tmp_path / "c", tiny_chat.REASONER, thinking="keep")
    assert replies(kept, *said) == ["<think>hm</think>yes", "hm</think>yes", "hm"]


def test_a_gold_answer_first_closes_the_thought_that_its_prompt_opens(tmp_path):
    policy = chat_policy(tmp_path / "a", tiny_chat.REASONER)
    assert policy.tokenizer.decode(policy.target("yes")) == "</think>\n\nyes<|im_end|>"
    assert policy._reader.texts([policy.target("yes")]) == ["yes"]
    kept = chat_policy(tmp_path / "b", tiny_chat.REASONER, thinking="keep")
    assert kept.tokenizer.decode(kept.target("yes")) == "yes<|im_end|>"


def test_tags_that_are_special_tokens_are_found_all_the_same():
    tokenizer = byte_tokenizer(tiny_chat.CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    ids = [np.array(tokenizer(text)["input_ids"], np.int32) for text in ("<think>hm</think>yes", "<think>hm", "yes")]
    none = ChatTemplate(tokenizer, PolicySettings()).ending()
    assert ReplyReader(tokenizer, [], none, opened=False, thoughts=False).texts(ids) == ["yes", "", "yes"]
    assert ReplyReader(tokenizer, [], none, opened=True, thoughts=False).texts(ids) == ["yes", "", ""]


def prompt_of(policy):
    return policy.tokenizer.decode(policy.contexts(["where ?"], [()])[0][0])


def test_arguments_reach_the_template(tmp_path):
    assert prompt_of(chat_policy(tmp_path / "a", tiny_chat.QWEN3)).endswith("assistant\n")
    still = chat_policy(tmp_path / "b", tiny_chat.QWEN3, chat_template_args={"enable_thinking": False})
    assert prompt_of(still).endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("name", ["enable_thoughts", "messages", "add_generation_prompt"])
def test_an_argument_that_the_template_does_not_read_is_refused(name, tmp_path):
    with pytest.raises(SettingsError, match=rf"policy.chat_template_args: .* does not read '{name}'; it reads enable_thinking"):
        chat_policy(tmp_path, tiny_chat.QWEN3, chat_template_args={name: True})


@pytest.mark.parametrize("setting", [{"chat_template_args": {"x": 1}}, {"template_date": date(2026, 1, 5)}])
def test_settings_of_a_template_need_one(setting, tmp_path):
    with pytest.raises(SettingsError, match=f"policy.{next(iter(setting))}: has no effect on a model without a chat template"):
        chat_policy(tmp_path, None, **setting)


def test_the_date_of_a_template_is_frozen_in_the_settings(tmp_path):
    folder = save_chat(tmp_path, tiny_chat.LLAMA3)
    assert with_family_templates(str(folder), PolicySettings()).template_date == datetime.now().date()
    settings = PolicySettings(template_date=date(2025, 3, 9))
    assert with_family_templates(str(folder), settings).template_date == date(2025, 3, 9)
    policy = load_policy(folder, settings, torch.float32, "cpu")
    assert "Today Date: 09 Mar 2025\n" in prompt_of(policy)
    rest = prompt_of(policy).replace("09 Mar 2025", "D")
    today = policy.tokenizer.apply_chat_template(
        [{"role": "user", "content": "where ?"}], tokenize=False, add_generation_prompt=True
    )
    assert rest == today.replace(f"{datetime.now():%d %b %Y}", "D")
    [row] = skeleton(folder, settings).contexts(["where ?"], [()])[0]
    assert np.array_equal(row, policy.contexts(["where ?"], [()])[0][0])


@pytest.mark.parametrize(
    ("format", "told"),
    [("%Y-%m-%d", "2026-01-05"), ("%A, %B %-d", "Monday, January 5"), ("%H:%M", "00:00"), ("%d/%m/%y", "05/01/26")],
)
def test_any_form_of_the_date_is_frozen(format, told):
    tokenizer = byte_tokenizer(tiny_chat.CHATML + "{{ strftime_now('" + format + "') }}")
    [prompt] = ChatTemplate(tokenizer, PolicySettings(template_date=date(2026, 1, 5))).prompts(["where ?"])
    assert prompt.endswith(f"assistant\n{told}")


def test_a_date_for_a_template_that_writes_none_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="policy.template_date: the model's chat template writes no date; leave it out"):
        chat_policy(tmp_path, tiny_chat.CHATML, template_date=date(2026, 1, 5))


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (tiny_chat.GEMMA, "refuses it .System role not supported."),
        (tiny_chat.CHATML.replace("in messages", "in messages if message['role'] != 'system'"), "leaves it out"),
    ],
)
def test_a_system_prompt_that_the_template_does_not_write_is_refused(template, problem, tmp_path):
    chat_policy(tmp_path / "without", template)
    with pytest.raises(SettingsError, match=f"policy.system_prompt: .* {problem}; put it into policy.prompt_template"):
        chat_policy(tmp_path / "with", template, system_prompt="be brief")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('no users') }}", "refuses it .no users."),
        ("{% for m in messages %}{% for part in m['content'] %}{{ part.text }}{% endfor %}{% endfor %}", "leaves it out"),
        (
            "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('no') }}{% endif %}{{ messages[0]['content'] }}",
            "refuses a",
        ),
        ("{{ messages[0]['content'] }} R:", "leaves a reply out"),
        ("{% for message in %}", "cannot be read"),
    ],
)
def test_a_template_that_has_no_use_for_a_turn_is_refused_in_one_line(template, problem, tmp_path):
    with pytest.raises(PolicyError, match=f"policy: .*chat template .*{problem}") as refusal:
        chat_policy(tmp_path, template)
    assert "\n" not in str(refusal.value) and "; " in str(refusal.value)


def test_a_tag_of_transformers_own_is_read():
    template = tiny_chat.CHATML.replace(
        "{{ message['content'] }}", "{% generation %}{{ message['content'] }}{% endgeneration %}"
    )
    assert ending(template) == ("<|im_end|>", ["<|im_end|>"], ())
