"""The small T5 that a run without a `policy.path` begins with."""

from collections.abc import Iterable

import torch
from transformers import T5Config, T5ForConditionalGeneration

from rollout.config import PolicySettings
from rollout.policy.family_t5 import T5
from rollout.policy.fid import FidPolicy
from rollout.policy.templates import with_templates
from rollout.policy.tokenizer import train_tokenizer


def build_tiny_policy(settings: PolicySettings, texts: Iterable[str], seed: int) -> FidPolicy:
    """Random weights drawn from `seed`, and a tokenizer trained on `texts`."""
    tiny = settings.tiny
    tokenizer = train_tokenizer(texts, tiny.vocab_size)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=tiny.d_model,
        d_kv=tiny.d_kv,
        d_ff=tiny.d_ff,
        num_layers=tiny.layers,
        num_heads=tiny.heads,
        decoder_start_token_id=tokenizer.pad_token_id,
        dropout_rate=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(config)
    return FidPolicy(model, tokenizer, with_templates(settings, tokenizer, T5))
