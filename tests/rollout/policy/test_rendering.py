"""Prompts that are longer than they may be: passages give way, then the question's beginning."""

import numpy as np
import pytest

from rollout.errors import SettingsError
from tests.rollout.tiny import PASSAGES, PROMPTS, contexts_of, tiny_policy
from tests.rollout.tiny_causal import causal_policy
from tests.rollout.tiny_chat import TURNS, chat_policy
from tests.rollout.tiny_t5s import t5_policy

QUESTION = "where did your cousin go ?"


def said(policy, longest, passages=PASSAGES, question=QUESTION):
    [context] = policy.contexts([question], [passages], longest)
    assert max(map(len, context)) <= longest
    return [policy.tokenizer.decode(row) for row in context]


def test_of_a_causal_prompt_the_worst_passages_go_first_then_the_questions_beginning(tmp_path):
    policy = causal_policy(tmp_path, chat=False)
    [whole] = said(policy, 100)
    first = "trip my cousin anna went to the beach ."
    assert whole.startswith(first) and whole.endswith(f"i love to bake bread . {QUESTION} R:")
    tokens = len(whole.split())
    assert said(policy, tokens) == [whole]
    assert said(policy, tokens - 1)[0].endswith(f"kitchen . {QUESTION} R:")  # the third passage is gone, whole
    assert said(policy, 16) == [f"{first} {QUESTION} R:"]
    assert said(policy, 15) == [f"{QUESTION} R:"]
    assert said(policy, 4) == ["cousin go ? R:"]


def test_of_a_t5s_prompt_the_passages_texts_end_sooner_then_the_question_begins_later():
    policy = tiny_policy()
    whole = said(policy, 100)
    longest = max(map(len, contexts_of(policy, PROMPTS[:1])[0]))
    assert said(policy, longest) == whole
    rows = said(policy, longest - 2)
    assert all(row.startswith(f"{QUESTION} R: ") for row in rows) and rows != whole
    assert len(rows[1]) < len(whole[1]) and rows[2] == whole[2]  # the shortest was not too long
    bare = said(policy, 10)
    assert all("R:" in row for row in bare) and not any("where" in row for row in bare)


def test_prompts_that_fit_are_what_they_are_without_a_bound(tmp_path):
    for policy in (tiny_policy(), causal_policy(tmp_path)):
        for ours, theirs in zip(
            policy.contexts([p.question for p in PROMPTS], [p.passages for p in PROMPTS], 500), contexts_of(policy), strict=True
        ):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("longest", [20, 30, 45, 70])
def test_tokens_that_are_parts_of_characters_are_counted_as_tokens(longest, tmp_path):
    japanese = [PASSAGES[0].__class__(id="j", title="", text="日本語の文章です")]
    causal = chat_policy(tmp_path / "c", TURNS, max_passage_tokens=20, prompt_template="{question}")
    byt5 = t5_policy("byt5", tmp_path / "b", max_passage_tokens=20)
    for policy in (causal, byt5):
        assert "ですか" in said(policy, longest, japanese, "これは何の文章ですか")[-1] or longest == 20


def test_a_bound_that_leaves_no_question_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="data.max_prompt_tokens: 1 leave no room for a question; raise it"):
        said(causal_policy(tmp_path, chat=False), 1)
