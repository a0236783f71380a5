"""T5, T5 v1.1, LM-adapted, Flan-T5, mT5 and ByT5, read as Fusion-in-Decoder."""

from transformers import AutoModelForSeq2SeqLM, T5Config

from rollout.policy.family import Family, Footprint, Lengths
from rollout.policy.fid import FidPolicy
from rollout.policy.templates import FUSED
from rollout.policy.tokenizer import EXTRA_IDS


def footprint(config: T5Config, lengths: Lengths) -> Footprint:
    """Numbers that a layer keeps per token, counted with torch's saved_tensors_hooks; d: width, i: inner, f: feed-forward
    (7 times where a GELU gates it), h: heads

        encoder   6 d + 4 i + f + h * row, and 2 i more in each decoder layer, which reads the context
        decoder   9 d + 6 i + f + h * response

    and 4 d outside the layers, and once the position bias h * row * row. Checkpointed, each layer keeps d (and the 2 i), and
    one layer is whole in the backward.
    """
    d, h = config.d_model, config.num_heads
    i, f = h * config.d_kv, (7 if config.is_gated_act else 1) * config.d_ff
    encoder, decoder = 6 * d + 4 * i + f + h * lengths.row, 9 * d + 6 * i + f + h * lengths.response
    read = 2 * i * config.num_decoder_layers
    return Footprint(
        cached=read,
        kept=max(config.num_layers * encoder + read, config.num_decoder_layers * decoder) + 4 * d,
        checkpointed=max(config.num_layers * d + read, config.num_decoder_layers * d) + max(encoder, decoder) + 4 * d,
        once=h * lengths.row**2,
    )


T5 = Family(
    name="T5",
    model_types={"t5", "mt5"},
    auto_model=AutoModelForSeq2SeqLM,
    policy=FidPolicy,
    templates=FUSED,
    fuses_passages=True,
    made_up_tokens=4 + EXTRA_IDS,
    footprint=footprint,
    positions=lambda config: None,  # its positions are relative
)
