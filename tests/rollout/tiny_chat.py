"""Chat models as they are met: a small Llama over bytes, whose end token is not the one that its template writes."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rollout.config import PolicySettings
from rollout.policy.causal import CausalPolicy
from rollout.policy.loading import load_policy
from tests.rollout.tiny_causal import SETTINGS

EOS = "<|endoftext|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = CHATML.replace(
    "assistant\n{% endif %}", "assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
) + ("<think>\n\n</think>\n\n{% endif %}{% endif %}")
REASONER = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
LLAMA3 = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n<|eot_id|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GLM4 = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WORDS = (
    "{% for message in messages %}### {{ message['role'] }}:\n{{ message['content'] }}\n[DONE]\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
TURNS = (
    "{% for message in messages %}{{ message['role'] | upper }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
OWN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>") + (
    "<start_of_turn>",
    "<end_of_turn>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
)


def byte_tokenizer(template: str | None, own_tokens: Sequence[str] = OWN_TOKENS) -> PreTrainedTokenizerBase:
    """A token a byte, then the end token, then `own_tokens`, which decoding shows: they are not special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS, pad_token=EOS)
    fast.add_tokens(list(own_tokens))
    fast.chat_template = template
    return fast


def save_chat(folder: Path, template: str | None, own_tokens: Sequence[str] = OWN_TOKENS) -> Path:
    words = byte_tokenizer(template, own_tokens)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(words), eos_token_id=words.eos_token_id, bos_token_id=None, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def chat_policy(folder: Path, template: str | None, own_tokens: Sequence[str] = OWN_TOKENS, **settings: object) -> CausalPolicy:
    wanted = PolicySettings.model_validate({**dict(SETTINGS), **settings})
    policy = load_policy(save_chat(folder, template, own_tokens), wanted, torch.float32, "cpu")
    assert isinstance(policy, CausalPolicy)
    return policy
