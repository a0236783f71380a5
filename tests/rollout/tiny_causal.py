"""Causal LMs small enough for every test: one of each family that is supported, with a word-level tokenizer."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from rollout.config import PolicySettings
from rollout.policy.causal import CausalPolicy
from rollout.policy.loading import load_policy
from tests.rollout.tiny import PROMPTS, TEXTS

END = 1
SETTINGS = PolicySettings(n_context=3, max_passage_tokens=12)
CHAT = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<pad>", "<end>", "<unk>", "<system>", "<user>", "<assistant>"]


def tokenizer(chat: bool) -> PreTrainedTokenizerBase:
    texts = [*TEXTS, *(p.question for p in PROMPTS), *(p.title + " " + p.text for q in PROMPTS for p in q.passages or ())]
    words = SPECIAL + sorted({word for text in texts for word in text.split()} - set(SPECIAL))
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
    fast.chat_template = CHAT if chat else None
    return fast


def config(family: str, vocabulary: int) -> PretrainedConfig:
    shape = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": 0, "bos_token_id": END, "eos_token_id": END}
    match family:
        case "llama":
            return LlamaConfig(**shape, **ends, intermediate_size=48, num_key_value_heads=2)
        case "qwen2":
            return Qwen2Config(**shape, **ends, intermediate_size=48, num_key_value_heads=1, tie_word_embeddings=True)
        case "qwen3":
            return Qwen3Config(**shape, **ends, intermediate_size=48, num_key_value_heads=2, head_dim=16)
        case "gpt2":
            return GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128, **ends)
        case "opt":
            return OPTConfig(**shape, **ends, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=128)
    raise ValueError(family)


def save_causal(folder: Path, family: str = "llama", chat: bool = True, seed: int = 0) -> Path:
    """A folder with random weights, spread enough that responses differ and some of a few tokens finish."""
    words = tokenizer(chat)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family, len(words)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
        model.get_output_embeddings().weight[END] *= 2
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def causal_policy(folder: Path, family: str = "llama", chat: bool = True, **settings: object) -> CausalPolicy:
    policy = load_policy(save_causal(folder, family, chat), SETTINGS.model_copy(update=settings), torch.float32, "cpu")
    assert isinstance(policy, CausalPolicy)
    return policy
