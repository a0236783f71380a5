"""A T5 small enough for every test, and prompts whose contexts are ragged: 3, 1, 0 and 2 passages of unequal length."""

import copy
import json
from functools import cache

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

from rollout.config import PolicySettings, TinySettings
from rollout.policy.decoding import Decoding
from rollout.policy.fid import FidPolicy
from rollout.policy.ragged import pad
from rollout.policy.tiny import build_tiny_policy
from rollout.types import Passage, Prompt

torch.set_num_threads(1)  # with so small a model, threads only wait for each other

END = 1
SETTINGS = PolicySettings(
    n_context=3,
    max_passage_tokens=12,
    prompt_template="{question} R:",
    passage_template="{query} {title} {text}",
    tiny=TinySettings(d_model=32, d_kv=8, heads=4, d_ff=48, layers=2, vocab_size=300),
)
TEXTS = (
    "my cousin anna went to the beach .",
    "my boss karl keeps a small grey parrot in the kitchen .",
    "i love to bake bread every morning .",
    "where did your cousin go ?",
    "which pet does your boss keep ?",
    "persona: context: Q: R: trip pet yes well oh . ?",
)
PASSAGES = (
    Passage(id="s0", title="trip", text="my cousin anna went to the beach ."),
    Passage(id="s1", title="pet", text="my boss karl keeps a small grey parrot in the kitchen ."),
    Passage(id="s2", title="", text="i love to bake bread ."),
)
PROMPTS = (
    Prompt(id="q0", question="where did your cousin go ?", answers=("the beach .",), passages=PASSAGES),
    Prompt(id="q1", question="which pet does your boss keep ?", answers=("a parrot .", "a pet ."), passages=PASSAGES[1:2]),
    Prompt(id="q2", question="yes ?", answers=("i love to bake .",), passages=()),
    Prompt(id="q3", question="persona: i bake . context: Q: where ?", answers=("well .",), passages=PASSAGES[::2]),
)


@cache
def _built(seed: int) -> FidPolicy:
    return build_tiny_policy(SETTINGS, TEXTS, seed)


def tiny_policy(seed: int = 0) -> FidPolicy:
    """A policy with a model of its own; its end token is likely enough that some responses of a few tokens finish."""
    policy = copy.copy(_built(seed))
    policy.model = copy.deepcopy(policy.model)
    with torch.no_grad():
        policy.model.shared.weight[1] *= 3
    return policy


def contexts_of(policy: FidPolicy, prompts=PROMPTS):
    return policy.contexts([p.question for p in prompts], [p.passages for p in prompts])


def sampled(policy: FidPolicy, prompts=PROMPTS, group_size: int = 3, max_new_tokens: int = 6, seed: int = 0, **decoding):
    """Groups of responses drawn from seeded uniforms."""
    uniforms = np.random.default_rng(seed).random((len(prompts) * group_size, max_new_tokens))
    settings = Decoding(max_new_tokens, uniforms=uniforms, **decoding)
    return policy.sample(contexts_of(policy, prompts), group_size, settings).responses


def with_own_head(folder):
    """A model like Flan-T5: gated feed-forward layers and output weights apart from the embedding."""
    tokenizer = tiny_policy().tokenizer
    tiny = SETTINGS.tiny
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=tiny.d_model,
        d_kv=tiny.d_kv,
        d_ff=tiny.d_ff,
        num_layers=tiny.layers,
        num_heads=tiny.heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    own = torch.randn(len(tokenizer), tiny.d_model) / 4
    own[END] *= 3  # so that some responses finish
    model.lm_head.weight = torch.nn.Parameter(own)  # transformers 5 had tied it
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    written = {key: value for key, value in json.loads(path.read_text()).items() if key != "scale_decoder_outputs"}
    path.write_text(json.dumps(written | {"tie_word_embeddings": False}))  # as the published folders say it
    return folder


def padded(groups):
    """Token ids and mask [P, G, T] of groups of responses."""
    ids, mask = pad([r.token_ids for group in groups for r in group], np.int64)
    return ids.view(len(groups), -1, ids.shape[1]), mask.view(len(groups), -1, ids.shape[1])


def chosen(logprobs, token_ids):
    """Of log-probs [T, V], those of the tokens [T]."""
    return logprobs.gather(-1, torch.from_numpy(token_ids.astype(np.int64))[:, None])[:, 0]
