"""Causal LMs: passages and question are one prompt."""

from transformers import AutoModelForCausalLM, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from rollout.policy.causal import CausalPolicy, longest_sequence
from rollout.policy.family import Family, Footprint, Lengths
from rollout.policy.templates import CHAT, PROMPT

FEED_FORWARD = ("d_ff", "intermediate_size", "ffn_dim", "n_inner")  # as models name its width


def footprint(config: PretrainedConfig, lengths: Lengths) -> Footprint:
    """Numbers that a layer keeps per token, counted with torch's saved_tensors_hooks; d: width, i: inner, f: feed-forward

        6 d + 6 i + 4 f, and of a response's token context + group for the mask of the tree

    and 4 d outside the layers. Checkpointed, each layer keeps d, and one layer is whole in the backward.
    """
    layers, d, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or d // heads
    f = next((size for name in FEED_FORWARD if (size := getattr(config, name, None))), 4 * d)
    layer = 6 * d + 6 * heads * head + 4 * f + lengths.context + lengths.group
    return Footprint(
        cached=2 * layers * (getattr(config, "num_key_value_heads", None) or heads) * head,
        kept=layers * layer + 4 * d,
        checkpointed=layers * d + layer + 4 * d,
    )


CAUSAL = Family(
    name="causal LM",
    model_types=(  # encoders and encoder-decoders have a causal variant too
        set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
        - set(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
        - set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    ),
    auto_model=AutoModelForCausalLM,
    policy=CausalPolicy,
    templates=PROMPT,
    chat_templates=CHAT,
    fuses_passages=False,
    made_up_tokens=4,
    footprint=footprint,
    positions=longest_sequence,
)
