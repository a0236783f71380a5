"""Ray shells: SamplerActor round Sampler, IndexActor round IndexPart."""

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import ray
import torch

from rollout.config import DataSettings, PolicySettings, RolloutSettings
from rollout.errors import LapdogError, RetrievalError, first_line
from rollout.identity import PROJECT, Identity, code_digest
from rollout.logs import log_what_is_done
from rollout.peak_memory import peak_memory_mb
from rollout.policy.loading import DTYPES, load_policy, tokenizer_of
from rollout.retrieval.corpus import Corpus
from rollout.retrieval.dense import OTHER_CONTENT, kept_slice, vectors_folder
from rollout.retrieval.encoder import Encoder
from rollout.retrieval.index import Part
from rollout.retrieval.open import open_source
from rollout.retrieval.part import IndexPart
from rollout.retrieval.retriever import Retriever
from rollout.retrieval.settings import RetrieverSettings
from rollout.retrieval.source import LocalSource
from rollout.sampler import Sampler
from rollout.types import Draws, Group, Mode, Prompt, SampleReport, Version

WATCH = "watch"  # threads of an IndexActor for who asks whether it is alive


class SamplerActor:
    fetch = staticmethod(ray.get)  # where the weights are

    def __init__(
        self,
        name: str,
        policy_path: str,
        data: DataSettings,
        policy: PolicySettings,
        retriever: RetrieverSettings,
        rollout: RolloutSettings,
        seed: int,
        threads: int,
        draws: Draws,
        index: Sequence[Any] = (),
    ):
        """index: the IndexActors that hold it; without any it is opened here."""
        self._name, self._policy_path, self._threads, self._draws = name, policy_path, threads, draws
        self._data, self._policy, self._retriever = data, policy, retriever
        self._rollout, self._seed, self._index = rollout, seed, index
        self._searched: list[ray.ObjectRef[Any]] = []

    def __repr__(self) -> str:
        return f"Sampler[{self._name}]"

    def ping(self) -> Identity:
        """Who it is, if alive."""
        return Identity(ray.get_runtime_context().get_node_id(), os.getpid(), code_digest(), str(PROJECT))

    def ready(self) -> None:
        """Load the model and open the index. An error here reaches the driver as itself, not so in __init__."""
        self._log = log_what_is_done()
        torch.set_num_threads(self._threads)  # Ray starts actors with OMP_NUM_THREADS=1
        device = self._device = "cuda" if torch.cuda.is_available() else "cpu"
        policy = load_policy(self._policy_path, self._policy, DTYPES[self._policy.dtype], device)
        n_context = self._policy.n_context
        ask_parts = self._ask_parts if self._index else None
        self._source = open_source(self._data, n_context, self._retriever, policy.tokenizer, device, ask_parts)
        retriever = Retriever(n_context, self._source)
        self._sampler = Sampler(policy, retriever, self._rollout, self._seed, self._data.cut_prompts_at, self._draws)
        self._log.info("%s: ready on %s with %d threads, policy %s", self, device, self._threads, self._policy_path)

    def embed(self, number: int) -> tuple[str, np.ndarray]:
        """Of which content, and the vectors [n, D] of a slice of the corpus, which are kept beside it."""
        corpus, encoder, size, dtype = made_of = self._vectors_of()
        return self._content(), kept_slice(vectors_folder(*made_of) / f"{number:06}", corpus, encoder, number, size, dtype)

    def lost_slices(self, vectors: list["ray.ObjectRef[Any]"]) -> list[int]:
        """Of a list of slices, which comes as a reference in a list: the numbers of those that are gone."""
        return [number for number, each in enumerate(self.fetch(vectors[0])[1]) if not self._is_there(each)]

    def sample(
        self,
        prompts: list[Prompt],
        mode: Mode,
        version: Version,
        weights: list["ray.ObjectRef[Any]"],
        vectors: list["ray.ObjectRef[Any]"],
    ) -> tuple[SampleReport | Group, ...]:
        """A report, then one group a prompt. Weights and vectors come as a reference in a list, fetched if they are new."""
        start = time.perf_counter()
        self._search(vectors)
        new = weights and mode != "gold" and self._sampler.version != version  # gold answers depend on none
        taken = self._take(weights[0], version) if new else 0
        synced = time.perf_counter()
        sampled = self._sampler.sample(prompts, mode, version)
        figures = {
            "sampled_groups": len(prompts),
            "sampled_tokens": sum(len(response.token_ids) for group in sampled.groups for response in group.responses),
            "seconds_sample": time.perf_counter() - synced,
            "seconds_sync": synced - start,
            "bytes_sync": taken,
            "top_p_mass": sampled.top_p_mass,
            "padding_sample": sampled.padding,
            "peak_memory_mb_sampler": peak_memory_mb(self._device),
        }
        done = f"{mode}: {len(prompts)} prompts, {figures['sampled_tokens']} tokens in {figures['seconds_sample']:.2f} s"
        self._log.info("%s%s", done, "" if mode == "gold" else _weights_of(version, figures))
        return SampleReport(version=version, figures=figures), *sampled.groups

    def _search(self, vectors: list["ray.ObjectRef[Any]"]) -> None:
        """The vectors that come: what they are of, and references to them. Raises RetrievalError for those of other content."""
        if vectors and vectors != self._searched:
            of, slices = self.fetch(vectors[0])
            if of != self._content():
                raise RetrievalError(OTHER_CONTENT)
            source = self._source
            assert isinstance(source, LocalSource) and source.dense is not None, "passages are searched by vectors"
            source.dense.load([self.fetch(each) for each in slices], of)
            self._searched = vectors

    def _vectors_of(self) -> tuple[Corpus, Encoder, int, str]:
        source = self._source
        assert isinstance(source, LocalSource) and source.dense is not None, "passages are searched by vectors"
        return source.corpus, source.dense.encoder, self._retriever.slice_passages, self._retriever.dtype

    def _content(self) -> str:
        """Of corpus and encoder, by which other nodes' vectors are known to be of the same."""
        corpus, *_ = made_of = self._vectors_of()
        return f"{corpus.digest} {vectors_folder(*made_of).name}"

    def _ask_parts(self, method: str, *arguments: Any) -> list[Any]:
        """What each part of the index answers. Ray starts a part again that is lost, and repeats what it was asked."""
        try:
            return list(self.fetch([getattr(part, method).remote(*arguments) for part in self._index]))
        except ray.exceptions.RayTaskError as error:
            met = error.cause
            told = first_line(met) if isinstance(met, LapdogError) else f"{type(met).__name__}: {first_line(met)}"
            raise RetrievalError(f"a part of the index cannot be searched: {told}") from error

    def _is_there(self, reference: "ray.ObjectRef[Any]") -> bool:
        try:
            self.fetch(reference)
        except ray.exceptions.ObjectLostError:
            return False
        return True

    def _take(self, reference: "ray.ObjectRef[Any]", version: Version) -> int:
        """Bytes of the weights that were loaded."""
        weights = self.fetch(reference)
        self._sampler.load_weights(weights, version)
        return int(weights.values.nbytes)


class IndexActor(IndexPart):
    """It comes up again by itself where it is lost: nothing but its arguments may be needed for that."""

    def __init__(
        self,
        part: Part,
        policy_path: str,
        data: DataSettings,
        policy: PolicySettings,
        retriever: RetrieverSettings,
        threads: int,
    ):
        super().__init__(part, data, retriever, partial(tokenizer_of, policy_path, policy))
        self._log = log_what_is_done()
        torch.set_num_threads(threads)

    def __repr__(self) -> str:
        return f"Index[{self.part.number}]"

    @ray.method(concurrency_group=WATCH)
    def ping(self) -> Identity:
        """Who it is, if alive, whatever else it does."""
        return Identity(ray.get_runtime_context().get_node_id(), os.getpid(), code_digest(), str(PROJECT))

    def ready(self) -> None:
        self.open()
        self._log.info("%s: ready, one of %d parts", self, self.part.of)


def _weights_of(version: Version, figures: dict[str, float]) -> str:
    """With which a call was answered, in words."""
    incarnation = f" (incarnation {version.incarnation})" if version.incarnation else ""
    taken = (
        f"; took in {figures['bytes_sync'] / 1e6:.1f} MB in {figures['seconds_sync']:.2f} s" if figures["bytes_sync"] else ""
    )
    return f", weights of step {version.step}{incarnation}{taken}"
