"""What a run would take, without starting it: actors, memory, tokens."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.config import Settings
from cluster.flags import dump
from cluster.inputs import Inputs
from rollout.config import DataSettings
from rollout.policy.interface import Policy
from rollout.policy.loading import Outline
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.retriever import Retriever

PROMPTS_MEASURED = 64
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. The learner keeps its weights in float32, gradients and Adam's two moments of what is trained alone, and a copy of
    that as reference; activations are those of `learner.token_budget` tokens, 17 values of the model's width a token and layer
    (Korthikanti et al. 2022, arXiv:2205.05198, attention scores left out).
    cache: keys and values of one call's contexts and responses. published: what travels with a version."""

    weights: int
    gradients: int
    adam: int
    reference: int
    activations: int
    sampler_weights: int
    cache: int
    published: int

    @property
    def learner(self) -> int:
        return self.weights + self.gradients + self.adam + self.reference + self.activations


@dataclass(frozen=True, slots=True)
class Tokens:
    """context: of each prompt that was measured. contexts: of the mean prompt times the prompts of one step of the last stage;
    responses: of that step, at most."""

    context: Sequence[int]
    contexts: int
    responses: int


def memory(settings: Settings, policy: Policy | Outline, context_tokens: float) -> Memory:
    parameters, trained = _parameters(policy)
    config, rollout, width = policy.model.config, settings.rollout, BYTES[settings.policy.dtype]
    layers = getattr(config, "num_decoder_layers", None) or config.num_hidden_layers
    encoder_layers = config.num_layers if config.is_encoder_decoder else 0
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
    head = head or config.hidden_size // config.num_attention_heads
    tokens_of_a_prompt = context_tokens + rollout.group_size * rollout.max_new_tokens
    call = min(rollout.prompts_per_call, rollout.prompts_per_step)
    needs_reference = settings.learner.steps > 0 and settings.learner.needs_reference()
    return Memory(
        weights=4 * parameters,
        gradients=4 * trained,
        adam=8 * trained,
        reference=4 * trained if needs_reference else 0,
        activations=settings.learner.token_budget * (layers + encoder_layers) * 17 * config.hidden_size * width,
        sampler_weights=width * parameters,
        cache=math.ceil(2 * layers * heads * head * width * tokens_of_a_prompt * call),
        published=width * trained,
    )


def tokens(settings: Settings, policy: Policy | Outline, inputs: Inputs) -> Tokens:
    """Renders prompts spread over the training file, with the passages found for them."""
    data, stage = settings.data, settings.stages()[-1]
    corpus = Corpus.open(data.passages, data.cache) if data.passages is not None else None
    count = min(PROMPTS_MEASURED, len(inputs.train))
    prompts = [inputs.train[i * len(inputs.train) // count] for i in range(count)]
    found = Retriever(corpus, data.query, settings.policy.n_context).retrieve(prompts)
    contexts = policy.contexts([prompt.question for prompt in prompts], [retrieval.passages for retrieval in found])
    lengths = [sum(len(row) for row in context) for context in contexts]
    each = settings.rollout.max_new_tokens * (settings.rollout.group_size if stage.sampled else 1)
    return Tokens(lengths, round(float(np.mean(lengths)) * stage.prompts_per_step), each * stage.prompts_per_step)


def plan(settings: Settings, inputs: Inputs, policy: Policy | Outline, data: DataSettings) -> str:
    """data: where the inputs lie now, which need not be where the run will have them."""
    measured = tokens(settings.model_copy(update={"data": data}), policy, inputs)
    parts = _actors(settings), _memory(settings, policy, measured), _tokens(settings, inputs, measured)
    return "\n\n".join([dump(settings).strip(), *("\n".join(part) for part in parts)])


def _actors(settings: Settings) -> Iterator[str]:
    cluster = settings.cluster
    wanted = [
        ("sampler", cluster.fewest_samplers, cluster.sampler_cpus, cluster.sampler_gpus),
        ("reward actor", cluster.rewards, cluster.reward_cpus, 0.0),
        ("learner", 1, cluster.learner_cpus, cluster.learner_gpus),
    ]
    for name, count, cpus, gpus in wanted:
        share = "a share of the GPUs there are" if gpus is None else f"{gpus:g} GPU"
        more = " or more" if name == "sampler" and cluster.samplers == "auto" else ""
        yield f"{f'{count} {name}{more}':<28}{cpus:g} CPU and {share} each"
    yield f"{'together':<28}{sum(count * cpus for _, count, cpus, _ in wanted):g} CPU"


def _memory(settings: Settings, policy: Policy | Outline, measured: Tokens) -> Iterator[str]:
    needed = memory(settings, policy, float(np.mean(measured.context)))
    parameters, trained = _parameters(policy)
    yield f"{'policy':<28}{type(policy.model).__name__}, {parameters:,} parameters, {trained:,} of them trained"
    of_learner = {"weights": needed.weights, "gradients": needed.gradients, "Adam": needed.adam, "reference": needed.reference}
    of_learner["activations, at most about"] = needed.activations
    of_sampler = {"weights": needed.sampler_weights, "cache": needed.cache}
    for name, parts in (("learner", of_learner), ("sampler, each", of_sampler)):
        yield f"{name:<28}{_size(sum(parts.values()))}: " + ", ".join(f"{part} {_size(size)}" for part, size in parts.items())
    yield f"{'object store':<28}{_size(2 * needed.published)}: two versions of the weights that travel"


def _tokens(settings: Settings, inputs: Inputs, measured: Tokens) -> Iterator[str]:
    stage, context = settings.stages()[-1], measured.context
    epochs = sum(each.steps * each.prompts_per_step for each in settings.stages()) / len(inputs.train)
    yield f"{'data':<28}{len(inputs.train):,} examples, {epochs:.1f} times over all stages; {len(inputs.valid):,} held out"
    yield f"{'context':<28}{np.mean(context):.0f} tokens a prompt, {max(context)} at most, of {len(context)} prompts measured"
    for label, steps in ((f"a step of {stage.name}", 1), (f"{stage.steps:,} steps", stage.steps)):
        contexts, responses = steps * measured.contexts, steps * measured.responses
        yield f"{label:<28}{contexts:,} tokens of contexts, {responses:,} of responses at most"


def _parameters(policy: Policy | Outline) -> tuple[int, int]:
    """All, and those that are trained."""
    return sum(p.numel() for p in policy.model.parameters()), sum(p.numel() for p in policy.trained_parameters())


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
