"""Bytes that the actors of a run will hold, from the settings and the shape of the model alone."""

from dataclasses import dataclass

from cluster.settings.tree import Settings
from cluster.training.held_out import largest_call
from rollout.policy.base import Policy
from rollout.policy.families import family_of
from rollout.policy.family import Lengths
from rollout.policy.loading import PolicySkeleton

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes. The learner keeps the weights, of those that are trained the gradient, Adam's two moments and the reference's own,
    all in float32; and these once more in `policy.dtype`, to publish them.

    activations: what the forward of a full micro-batch keeps for its backward, at most, each token as dear as the dearest; in
    bfloat16 as many, and the weights once more as the forward rounds them. Logits are made in slices of 32 MiB and not among
    them. cache: keys and values of a sampler's largest call.
    """

    weights: int
    gradients: int
    adam: int
    reference: int
    published: int
    activations: int
    sampler_weights: int
    cache: int


def memory(settings: Settings, policy: Policy | PolicySkeleton, context: int, row: int) -> MemoryEstimate:
    """context: tokens of the longest context; row: of its longest row."""
    parameters, trained = parameter_counts(policy)
    rollout, learner, width = settings.rollout, settings.learner, BYTES[settings.policy.dtype]
    group = max((rollout.group_size if stage.sampled else 1) * rollout.max_new_tokens for stage in settings.stages())
    lengths = Lengths(context=context, row=row, response=rollout.max_new_tokens, group=group)
    held = family_of(policy.model.config).footprint(policy.model.config, lengths)
    kept = _most_tokens(settings, context) * (held.checkpointed if learner.activation_checkpointing else held.kept) + held.once
    call = min(rollout.prompts_per_call, rollout.prompts_per_step) * (context + rollout.group_size * rollout.max_new_tokens)
    held_out = 0 if settings.data.valid is None else largest_call(settings.eval_samples, context, rollout.max_new_tokens)
    return MemoryEstimate(
        weights=4 * parameters,
        gradients=4 * trained,
        adam=8 * trained,
        reference=4 * trained if learner.steps > 0 and learner.needs_reference() else 0,
        published=width * trained,
        activations=4 * kept + (0 if width == 4 else width * parameters),
        sampler_weights=width * parameters,
        cache=held.cached * width * max(call, held_out),
    )


def _most_tokens(settings: Settings, context: int) -> int:
    """Of a micro-batch: `learner.token_budget`, or one group if that is more, or a whole step if that is less."""
    most = 0
    for stage in settings.stages():
        group = context + (settings.rollout.group_size if stage.sampled else 1) * settings.rollout.max_new_tokens
        most = max(most, min(max(settings.learner.token_budget, group), stage.prompts_per_step * group))
    return most


def parameter_counts(policy: Policy | PolicySkeleton) -> tuple[int, int]:
    """All, and those that are trained."""
    return sum(p.numel() for p in policy.model.parameters()), sum(p.numel() for p in policy.trained_parameters().values())
