"""What surrounds a reply: its beginning, its end and its thoughts, as different templates write them."""

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from rollout.config import PolicySettings
from rollout.policy.family_causal import CAUSAL
from rollout.policy.loading import load_policy
from rollout.policy.rendering import CausalRenderer
from rollout.policy.reply import ReplyReader
from rollout.policy.templates import with_templates
from tests.rollout import tiny_chat
from tests.rollout.tiny_chat import EOS, byte_tokenizer, chat_policy, save_chat

TURN = "{% for m in messages %}{% if m.role == 'user' %}"
LLAMA2 = TURN + "<s>[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{% endif %}{% endfor %}"
MISTRAL = (
    "<s>" + TURN + "[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{% if not loop.last %}{{ eos_token }}{% endif %}"
    "{% endif %}{% endfor %}"
)
NO_LAST_END = tiny_chat.CHATML.replace(
    "<|im_end|>\n", "{% if not (loop.last and message.role == 'assistant') %}<|im_end|>\n{% endif %}"
)
DEFAULT_SYSTEM = "<|im_start|>system\nBe brief.<|im_end|>\n"
HARMONY = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")
GPT_OSS = (
    "<|start|>system<|message|>Day {{ strftime_now('%Y-%m-%d') }}<|end|>" + TURN + "<|start|>user<|message|>{{ m.content }}"
    "<|end|>{% else %}"
    "{% if 'thinking' in m %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GPT_OSS_BARE = GPT_OSS.replace("'thinking' in m", "false")
QWEN3 = tiny_chat.QWEN3.replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ message['content'] }}",
)
QWEN3_THINKING = QWEN3.replace("{% if enable_thinking is", "<think>\n{% if enable_thinking is")
MISTRAL_THINKING = "<s>" + TURN + "[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
GLM45 = (
    "[gMASK]"
    + TURN
    + (
        "<|user|>\n{{ m.content }}{% else %}<|assistant|>\n<think>{{ m.reasoning_content }}</think>\n{{ m.content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
)
GEMMA4 = (
    "{% for m in messages %}<|turn>{{ m.role }}\n"
    "{% if m.reasoning %}<|channel>thought\n{{ m.reasoning }}\n<channel|>{% endif %}"
    "{{ m.content }}<turn|>\n{% endfor %}{% if add_generation_prompt %}<|turn>assistant\n"
    "{% if not enable_thinking | default(false) %}<|channel>thought\n<channel|>{% endif %}{% endif %}"
)
COMMAND = TURN + (
    "<|USER|>{{ m.content }}<|END|>{% else %}<|BOT|>{% if m.thinking %}<|START_THINKING|>{{ m.thinking }}<|END_THINKING|>"
    "{% endif %}<|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|><|END|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|BOT|>{% endif %}"
)
DEEPSEEK = TURN + (
    "<User>{{ m.content }}{% else %}<Assistant></think>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<Assistant>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
NO_PROMPT = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"


class Reader:
    """Of replies written as text, as the tokenizer with `own` tokens reads them; `special` ones decoding leaves out."""

    def __init__(self, template, own=(), special=(), **settings):
        self.tokenizer = byte_tokenizer(template, own)
        self.tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
        wanted = with_templates(PolicySettings(**settings), self.tokenizer, CAUSAL)
        self.renderer = CausalRenderer(self.tokenizer, wanted)
        self.form = self.renderer.form
        self.reader = ReplyReader(self.tokenizer, self.form.ending.heeded, self.form, wanted.thinking == "keep")

    def read(self, *replies):
        ids = [np.array(self.tokenizer(reply, add_special_tokens=False)["input_ids"], np.int32) for reply in replies]
        return self.reader.texts(ids)

    def gold(self, answer):
        return self.tokenizer.decode(self.renderer.answer(answer))


@pytest.mark.parametrize(
    ("template", "own", "gold"),
    [
        (tiny_chat.CHATML, tiny_chat.OWN_TOKENS, "yes"),
        (tiny_chat.GEMMA, tiny_chat.OWN_TOKENS, "yes"),
        (LLAMA2, ("<s>",), " yes"),
        (tiny_chat.TURNS, (), " yes"),
        (GPT_OSS, HARMONY, "<|channel|>final<|message|>yes"),
        (GPT_OSS_BARE, HARMONY, "<|channel|>final<|message|>yes"),
        (QWEN3, tiny_chat.OWN_TOKENS, "<think>\n\n</think>\n\nyes"),
        (QWEN3_THINKING, tiny_chat.OWN_TOKENS, "\n</think>\n\nyes"),
        (tiny_chat.REASONER, tiny_chat.OWN_TOKENS, "</think>\n\nyes"),  # of itself it closes none
        (GLM45, tiny_chat.OWN_TOKENS, "\n<think></think>\nyes"),
        (GEMMA4, ("<|turn>", "<turn|>", "<|channel>", "<channel|>"), "yes"),
        (COMMAND, ("<|START_RESPONSE|>", "<|END_RESPONSE|>"), "<|START_RESPONSE|>yes"),
        (NO_PROMPT, tiny_chat.OWN_TOKENS, "<|assistant|>\nyes"),  # whose prompts do not end with the reply's beginning
    ],
)
def test_a_gold_answer_begins_as_the_template_begins_a_reply_and_reads_as_itself(template, own, gold):
    reader = Reader(template, own)
    assert reader.gold("yes") == gold
    assert reader.read(gold, f" {gold} ") == ["yes", "yes"]


def test_a_thought_that_the_prompt_opens_is_closed_as_the_template_closes_it():
    for own in ((), ("<think>", "</think>")):
        assert Reader(DEEPSEEK, own, chat_template_args={"thinking": True}).gold("yes") == "</think>yes"
        assert Reader(DEEPSEEK, own).gold("yes") == "yes"


def test_a_thought_is_switched_off_where_the_prompt_has_an_empty_one():
    assert Reader(QWEN3, tiny_chat.OWN_TOKENS, chat_template_args={"enable_thinking": False}).gold("yes") == "yes"


def test_a_gold_answer_that_thinks_is_given_no_thought():
    for template in (QWEN3, tiny_chat.CHATML):
        assert Reader(template).gold("<think>hm</think>yes") == "<think>hm</think>yes"
    assert Reader(tiny_chat.REASONER).gold("hm</think>yes") == "hm</think>yes"


def test_where_thoughts_are_kept_a_gold_answer_has_its_own_but_begins_as_a_reply():
    assert Reader(QWEN3, thinking="keep").gold("yes") == "yes"
    assert Reader(GPT_OSS, HARMONY, thinking="keep").gold("yes") == "<|channel|>final<|message|>yes"


def test_a_beginning_that_is_no_part_of_the_turn_is_not_said():
    renamed = tiny_chat.CHATML.replace("assistant\n{% endif %}", "robot\n{% endif %}")
    assert Reader(renamed, tiny_chat.OWN_TOKENS).gold("yes") == "yes"


def test_an_answer_is_cut_into_tokens_as_it_goes_on_from_the_prompt():
    reader = Reader(tiny_chat.CHATML, (*tiny_chat.OWN_TOKENS, "\nyes"))
    assert reader.gold("yes") == "yes" and len(reader.renderer.answer("yes")) == 3  # no token of prompt and answer together


@pytest.mark.parametrize("template", [GPT_OSS, GPT_OSS_BARE])
@pytest.mark.parametrize("tokens", [{"own": HARMONY}, {"special": HARMONY}])
def test_of_several_channels_the_final_one_is_read(template, tokens):
    reader = Reader(template, **tokens)
    thought = "<|channel|>analysis<|message|>hm"
    final = "<|start|>assistant<|channel|>final<|message|>yes<|return|>"
    assert (
        reader.read(f"{thought}<|end|>{final}", f"{thought}<|end|><|channel|>commentary<|message|>x<|end|>{final}")
        == ["yes"] * 2
    )
    assert reader.read(thought, "yes") == ["", "yes"]
    kept = Reader(template, thinking="keep", **tokens)
    assert kept.read(thought, final.removeprefix("<|start|>assistant")) == [thought, "yes"]
    assert reader.tokenizer.decode(reader.form.ending.taught) == "<|return|>"


@pytest.mark.parametrize(
    ("template", "own", "thought"),
    [
        (QWEN3, ("<think>", "</think>"), "<think>\nhm\n</think>\n\n"),
        (QWEN3, (), "<think>\nhm\n</think>\n\n"),
        (MISTRAL_THINKING, ("[INST]", "[/INST]", "[THINK]", "[/THINK]"), "[THINK]hm[/THINK]"),
        (GLM45, (), "\n<think>hm</think>\n"),
        (GEMMA4, ("<|turn>", "<turn|>", "<|channel>", "<channel|>"), "<|channel>thought\nhm\n<channel|>"),
        (COMMAND, (), "<|START_THINKING|>hm<|END_THINKING|>"),
        (
            tiny_chat.CHATML.replace("{{ message['content'] }}", "{{ message['content'].split('</thinking>')[-1] }}"),
            (),
            "<thinking>hm</thinking>",
        ),
    ],
)
def test_thoughts_are_cut_by_the_tags_of_template_and_tokenizer(template, own, thought):
    opening, _, closing = thought.partition("hm")
    for tokens in ({"own": own}, {"special": own}):
        reader = Reader(template, **tokens)
        assert reader.read(f"{thought}yes", f"{opening}hm", f"hm{closing}yes", "yes") == ["yes", "", "yes", "yes"]
        assert Reader(template, thinking="keep", **tokens).read(f"{thought}yes") == [f"{thought}yes".strip()]


def test_thoughts_are_cut_by_the_tags_that_the_settings_word():
    asked = {"system_prompt": "First <reasoning>...</reasoning>, then the answer."}
    assert Reader(tiny_chat.CHATML, **asked).read("<reasoning>hm</reasoning>yes") == ["yes"]
    assert Reader(tiny_chat.CHATML).read("<reasoning>hm</reasoning>yes") == ["<reasoning>hm</reasoning>yes"]


def test_words_round_a_thought_cut_nothing():
    words = tiny_chat.CHATML.replace(
        "{{ message['content'] }}",
        "{% if message.thinking %}Thought: {{ message.thinking }} Answer: {% endif %}{{ message['content'] }}",
    )
    assert Reader(words).read("The Answer: yes") == ["The Answer: yes"]


def ends(policy):
    """What a gold answer is taught to end with, and what ends replies."""
    return policy.tokenizer.decode(policy._taught), policy.tokenizer.convert_ids_to_tokens(policy.end_tokens)


@pytest.mark.parametrize(
    ("template", "own", "taught", "heeded"),
    [
        (LLAMA2, ("<s>",), EOS, [EOS, "<s>"]),
        (tiny_chat.GLM4, tiny_chat.OWN_TOKENS, EOS, [EOS, "<|user|>"]),
        (MISTRAL, ("<s>",), EOS, [EOS]),
        (NO_LAST_END, tiny_chat.OWN_TOKENS, "<|im_end|>", ["<|im_end|>", EOS]),
        (DEFAULT_SYSTEM + NO_LAST_END, tiny_chat.OWN_TOKENS, "<|im_end|>", ["<|im_end|>", EOS]),
    ],
)
def test_a_token_that_begins_the_next_turn_is_heeded_and_the_end_token_taught(template, own, taught, heeded, tmp_path):
    assert ends(chat_policy(tmp_path, template, own)) == (taught, heeded)


@pytest.mark.parametrize("place", ["config", "generation_config"])
def test_such_a_token_is_taught_where_the_model_calls_it_an_end(place, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(save_chat(tmp_path, tiny_chat.GLM4))
    user, eos = byte_tokenizer(None).convert_tokens_to_ids(["<|user|>", EOS])
    getattr(model, place).eos_token_id = [eos, user]
    model.save_pretrained(tmp_path)
    assert ends(load_policy(tmp_path, PolicySettings(), model.dtype, "cpu")) == ("<|user|>", ["<|user|>", EOS])


def test_a_token_that_begins_every_text_is_never_taught(tmp_path):
    folder = save_chat(tmp_path, LLAMA2.replace("<s>", "{% if not loop.first %}<s>{% endif %}"), ("<s>",))
    tokenizer = byte_tokenizer(LLAMA2.replace("<s>", "{% if not loop.first %}<s>{% endif %}"), ("<s>",))
    tokenizer.bos_token = "<s>"
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.bos_token_id]
    model.save_pretrained(folder)
    assert ends(load_policy(folder, PolicySettings(), model.dtype, "cpu")) == (EOS, [EOS, "<s>"])
