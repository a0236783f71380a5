"""Thoughts are cut from a text by the tags that are known."""

import pytest

from rollout.policy.thoughts import ThoughtTags, pairs_of


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
    assert ThoughtTags().outside(said).strip() == shown


def test_a_prompt_that_opens_a_thought_leaves_nothing_of_one_that_is_not_closed():
    assert ThoughtTags().outside("still at it", opened=True) == ""
    assert ThoughtTags().outside("done</think>yes", opened=True) == "yes"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<thinking>", "</thinking>"),
        ("[THINK]", "[/THINK]"),
        ("<seed:think>", "</seed:think>"),
        ("<reasoning>", "</reasoning>"),
        ("◁think▷", "◁/think▷"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|think_start|>", "<|think_end|>"),
    ],
)
def test_a_closing_tag_that_is_named_cuts_its_thoughts_beside_think(opening, closing):
    tags = ThoughtTags.named_in(["{{ content.split('" + closing + "')[-1] }}"])
    assert (opening, closing) in pairs_of(closing)
    for text in (f"{opening}hm{closing}yes", f"hm{closing}yes", "<think>hm</think>yes", "yes"):
        assert tags.outside(text) == "yes"
    assert tags.outside(f"{opening}hm") == "" and tags.closing_after(f"assistant\n{opening}\n") == closing


@pytest.mark.parametrize("text", ["</tool_call>", "[/INST]", "<|im_end|>", "<|end_of_text|>", "reason/thought", "<think>", ""])
def test_what_closes_no_thought_names_no_tags(text):
    assert ThoughtTags.named_in([text]) == ThoughtTags()


def test_of_two_tags_that_begin_alike_the_longer_one_is_found():
    tags = ThoughtTags((("<a>", "<b>"), ("<a>", "<b><c>")))
    assert tags.outside("<a>hm<b><c>yes") == "yes" and tags.outside("<a>hm<b>yes") == "yes"
