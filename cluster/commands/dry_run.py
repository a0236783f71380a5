"""What a run would take, without starting it: actors, memory, tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.actors.roles import RoleKind, roles_of
from cluster.commands.memory_estimate import memory, parameter_counts
from cluster.settings.tree import Settings
from cluster.settings.yaml_file import dump
from cluster.training.inputs import Inputs
from rollout.config import DataSettings
from rollout.policy.base import Policy
from rollout.policy.loading import PolicySkeleton
from rollout.retrieval.open import LEXICAL, open_encoder, open_retriever

PROMPTS_MEASURED = 64
VECTOR_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Tokens:
    """context: of each prompt that was measured; row: of their longest row. contexts: of the mean prompt times the prompts of a
    step of the last stage; responses: of that step, at most."""

    context: Sequence[int]
    row: int
    contexts: int
    responses: int


def tokens(settings: Settings, policy: Policy | PolicySkeleton, inputs: Inputs) -> Tokens:
    """Renders prompts spread over the training file, with the passages that BM25 finds: for a plan no corpus is embedded, and
    other passages are as long."""
    stage = settings.stages()[-1]
    count = min(PROMPTS_MEASURED, len(inputs.train))
    prompts = [inputs.train[i * len(inputs.train) // count] for i in range(count)]
    retriever = LEXICAL if settings.retriever.url is None else settings.retriever
    found = open_retriever(settings.data, settings.policy.n_context, retriever).retrieve(prompts)
    passages = [retrieval.passages for retrieval in found]
    contexts = policy.contexts([prompt.question for prompt in prompts], passages, settings.data.cut_prompts_at)
    lengths = [sum(len(row) for row in context) for context in contexts]
    each = settings.rollout.max_new_tokens * (settings.rollout.group_size if stage.sampled else 1)
    row = max(len(row) for context in contexts for row in context)
    return Tokens(lengths, row, round(float(np.mean(lengths)) * stage.prompts_per_step), each * stage.prompts_per_step)


def plan(settings: Settings, inputs: Inputs, policy: Policy | PolicySkeleton, data: DataSettings, local: bool) -> str:
    """data: where the inputs lie now, which need not be where the run will have them. local: without Ray."""
    measured = tokens(settings.with_values(data=data), policy, inputs)
    actors = ["one sampler, one reward actor and the learner in one process, without Ray"] if local else _actors(settings)
    memory_of = *_memory(settings, policy, measured), *_vectors(settings, inputs.passages, policy, local)
    parts = actors, memory_of, _tokens(settings, inputs, measured)
    return "\n\n".join([dump(settings).strip(), *("\n".join(part) for part in parts)])


def _actors(settings: Settings) -> Iterator[str]:
    roles = [role for role in roles_of(settings).values() if role.count]
    for role in roles:
        named = f"{role.count} {role.name}{'s' if role.count > 1 else ''}"
        more = " or more" if role.kind is RoleKind.SAMPLER and settings.cluster.samplers == "auto" else ""
        share = "a share of the GPUs there are" if role.gpus is None else f"{role.gpus:g} GPU"
        yield f"{f'{named}{more}':<28}{role.cpus:g} CPU and {share} each"
    shared = ", and those that are shared" if any(role.gpus is None for role in roles) else ""
    cpus, gpus = sum(role.count * role.cpus for role in roles), sum(role.count * (role.gpus or 0.0) for role in roles)
    yield f"{'together':<28}{cpus:g} CPU and {gpus:g} GPU{shared}"


def _memory(settings: Settings, policy: Policy | PolicySkeleton, measured: Tokens) -> Iterator[str]:
    needed = memory(settings, policy, max(measured.context), measured.row)
    parameters, trained = parameter_counts(policy)
    yield f"{'policy':<28}{type(policy.model).__name__}, {parameters:,} parameters, {trained:,} of them trained"
    of_learner = {"weights": needed.weights, "gradients": needed.gradients, "Adam": needed.adam, "reference": needed.reference}
    of_learner |= {"weights to publish": needed.published, "activations at most": needed.activations}
    of_sampler = {"weights": needed.sampler_weights, "cache": needed.cache}
    for name, parts in (("learner", of_learner), ("sampler, each", of_sampler)):
        yield f"{name:<28}{_size(sum(parts.values()))}: " + ", ".join(f"{part} {_size(size)}" for part, size in parts.items())
    yield f"{'object store':<28}{_size(2 * needed.published)}: two versions of the weights that travel"


def _vectors(settings: Settings, passages: int, policy: Policy | PolicySkeleton, local: bool) -> Iterator[str]:
    """Where passages are searched by them; the encoder is loaded to know their width."""
    retriever = settings.retriever
    if not passages or retriever.used_mode == "lexical" or not settings.policy.n_context:
        return
    encoder = open_encoder(retriever, policy.tokenizer, "cpu")
    size, each = _size(passages * encoder.width * VECTOR_BYTES[retriever.dtype]), f"{encoder.width} {retriever.dtype}"
    where = "in each node's object store and once more on disk"
    if (parts := settings.index_parts) and not local:
        where = f"on disk, of which an index actor maps 1/{parts}"
    yield f"{'vectors':<28}{size} {where}: {passages:,} of {each}"
    yield f"{'encoder, each sampler':<28}{_size(encoder.bytes)}"


def _tokens(settings: Settings, inputs: Inputs, measured: Tokens) -> Iterator[str]:
    stage, context = settings.stages()[-1], measured.context
    epochs = sum(each.steps * each.prompts_per_step for each in settings.stages()) / len(inputs.train)
    yield f"{'data':<28}{len(inputs.train):,} examples, {epochs:.1f} times over all stages; {len(inputs.held_out):,} held out"
    yield from (f"{'':<28}{text}" for text in inputs.told)
    yield f"{'context':<28}{np.mean(context):.0f} tokens a prompt, {max(context)} at most, of {len(context)} prompts measured"
    for label, steps in ((f"a step of {stage.name}", 1), (f"{stage.steps:,} steps", stage.steps)):
        contexts, responses = steps * measured.contexts, steps * measured.responses
        yield f"{label:<28}{contexts:,} tokens of contexts, {responses:,} of responses at most"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
