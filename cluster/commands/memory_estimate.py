"""Bytes that the actors of a run will hold, from the settings and the shape of the model alone."""

from dataclasses import dataclass

from transformers import PretrainedConfig

from cluster.settings.tree import Settings
from cluster.training.held_out import PROMPTS_PER_CALL
from rollout.policy.interface import Policy
from rollout.policy.loading import PolicySkeleton

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes. The learner keeps the weights, of those that are trained the gradient, Adam's two moments and the reference's own,
    all in float32; and these once more in `policy.dtype`, to publish them.

    activations: what the forward of a full micro-batch keeps for its backward, at most; logits are made in slices of 32 MiB
    and not among them. cache: keys and values of a sampler's largest call, 2 * layers * key width of each token.
    """

    weights: int
    gradients: int
    adam: int
    reference: int
    published: int
    activations: int
    sampler_weights: int
    cache: int


@dataclass(frozen=True, slots=True)
class Shape:
    """layers: of the decoder. inner, keys: width of all query heads, of all key heads. activation: values that the activation
    between a feed-forward's matrices keeps per value of its width: 7 of a gated GELU in T5, 1 of a ReLU."""

    is_t5: bool
    layers: int
    encoder_layers: int
    width: int
    inner: int
    keys: int
    heads: int
    feed_forward: int
    activation: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> "Shape":
        is_t5 = config.is_encoder_decoder
        heads, width = config.num_attention_heads, config.hidden_size
        head = config.d_kv if is_t5 else getattr(config, "head_dim", None) or width // heads
        names = ("d_ff", "intermediate_size", "ffn_dim", "n_inner")
        feed_forward = next((size for name in names if (size := getattr(config, name, None))), 4 * width)
        return cls(
            is_t5=is_t5,
            layers=config.num_decoder_layers if is_t5 else config.num_hidden_layers,
            encoder_layers=config.num_layers if is_t5 else 0,
            width=width,
            inner=heads * head,
            keys=(getattr(config, "num_key_value_heads", None) or heads) * head,
            heads=heads,
            feed_forward=feed_forward,
            activation=(7 if config.is_gated_act else 1) if is_t5 else 4,
        )


def memory(settings: Settings, policy: Policy | PolicySkeleton, context: int, row: int) -> MemoryEstimate:
    """context: tokens of the longest context; row: of its longest row."""
    parameters, trained = parameter_counts(policy)
    rollout, width = settings.rollout, BYTES[settings.policy.dtype]
    shape = Shape.of(policy.model.config)
    call = min(rollout.prompts_per_call, rollout.prompts_per_step) * (context + rollout.group_size * rollout.max_new_tokens)
    held_out = PROMPTS_PER_CALL * (context + rollout.max_new_tokens) if settings.data.valid is not None else 0
    needs_reference = settings.learner.steps > 0 and settings.learner.needs_reference()
    return MemoryEstimate(
        weights=4 * parameters,
        gradients=4 * trained,
        adam=8 * trained,
        reference=4 * trained if needs_reference else 0,
        published=width * trained,
        activations=activations(settings, shape, context, row) + (0 if width == 4 else width * parameters),
        sampler_weights=width * parameters,
        cache=2 * shape.layers * shape.keys * width * max(call, held_out),
    )


def activations(settings: Settings, shape: Shape, context: int, row: int) -> int:
    """Bytes for the tokens of a micro-batch: `learner.token_budget`, or one group if that is more, or a whole step if that is
    less, each as dear as the dearest. In bfloat16 as many, and the weights once more as the forward rounds them.

    Values that a layer keeps per token, counted with torch's saved_tensors_hooks; d: width, i: inner, f: feed-forward, h: heads

        T5 encoder   6 d + 4 i + activation * f + h * row, and 2 i more in each decoder layer, which reads the context
        T5 decoder   9 d + 6 i + activation * f + h * response
        causal LM    6 d + 6 i + 4 f, and of a response's token context + group for the mask of the tree

    and 4 d outside the layers, and a T5's position bias h * row * row. With `learner.activation_checkpointing` each layer keeps
    d (and a T5 the 2 i), and one layer is whole in the backward.
    """
    length = settings.rollout.max_new_tokens
    d, i, f = shape.width, shape.inner, shape.activation * shape.feed_forward
    tokens = group = 0
    for stage in settings.stages():
        group = max(group, size := (settings.rollout.group_size if stage.sampled else 1) * length)
        tokens = max(tokens, min(max(settings.learner.token_budget, context + size), stage.prompts_per_step * (context + size)))
    if shape.is_t5:
        encoder, decoder = 6 * d + 4 * i + f + shape.heads * row, 9 * d + 6 * i + f + shape.heads * length
        read = 2 * i * shape.layers
        of_context, of_response = shape.encoder_layers * encoder + read, shape.layers * decoder
        checkpointed = max(shape.encoder_layers * d + read, shape.layers * d) + max(encoder, decoder)
    else:
        of_context, mask = shape.layers * (6 * d + 6 * i + f), context + group
        of_response = of_context + shape.layers * mask
        checkpointed = shape.layers * d + 6 * d + 6 * i + f + mask
    kept = checkpointed if settings.learner.activation_checkpointing else max(of_context, of_response)
    bias = shape.heads * row**2 if shape.is_t5 else 0
    return 4 * (tokens * (kept + 4 * d) + bias)


def parameter_counts(policy: Policy | PolicySkeleton) -> tuple[int, int]:
    """All, and those that are trained."""
    return sum(p.numel() for p in policy.model.parameters()), sum(p.numel() for p in policy.trained_parameters())
