"""Settings of how passages are found, beyond what `data.query` and `data.language` say."""

from typing import Annotated, Literal

from pydantic import Field

from rollout.config import OF_A_POLICY, OF_SEARCH, NonNegative, Positive, QueryPart
from rollout.retrieval.url_settings import UrlSettings
from rollout.setting_tags import ModelCard, Place, ReadBy

RetrievalMode = Literal["lexical", "dense", "hybrid"]
VectorDtype = Literal["float32", "float16", "bfloat16"]
NonNegativeNumber = Annotated[float, Field(ge=0)]

PRETRAINED_SCALE, STATIC_SCALE = 20.0, 2.0


class RetrieverSettings(UrlSettings):
    """By words, by vectors, or by both; or by a server."""

    mode: Annotated[RetrievalMode | None, OF_SEARCH, ModelCard()] = Field(
        None,
        description="lexical: BM25; dense: vectors; hybrid: both; default: lexical, or hybrid where retriever.path is given",
    )
    path: Annotated[str | None, Place(), OF_SEARCH, ModelCard()] = Field(
        None,
        description="folder or hub name of a sentence-transformers encoder; without it a text's vector is the mean of its "
        "tokens', drawn at random for the policy's tokenizer",
    )
    query: Annotated[QueryPart | None, OF_A_POLICY, ModelCard()] = Field(
        None, description="part of the question that is compared with vectors; default: data.query"
    )
    candidates: Annotated[Positive, OF_SEARCH, ModelCard()] = Field(
        16, description="passages that vectors put forward to a hybrid, at least as many as are read"
    )
    lexical: Annotated[NonNegative, OF_SEARCH, ModelCard()] = Field(
        16, description="passages that BM25 puts forward; all of both are scored by both"
    )
    scale: Annotated[NonNegativeNumber | None, OF_SEARCH, ModelCard()] = Field(
        None, description="a hybrid's score is scale * inner product + lexical_weight * BM25; default: 20, without a path 2"
    )
    lexical_weight: Annotated[NonNegativeNumber, OF_SEARCH, ModelCard()] = Field(
        1.0, description="weight of BM25 in a hybrid's score"
    )
    max_tokens: Annotated[Positive, OF_SEARCH, ModelCard()] = Field(
        256, description="longest query or passage in the encoder's tokens, beyond which it is cut, if not before"
    )
    dtype: Annotated[VectorDtype, OF_SEARCH] = Field(
        "float32", description="how vectors are kept; arithmetic is float32, and only float32 finds what an exact search finds"
    )
    normalize: Annotated[bool | None, OF_SEARCH, ModelCard()] = Field(
        None, description="whether vectors get length 1; default: as the encoder's modules have it"
    )
    query_prompt: Annotated[str | None, OF_SEARCH, ModelCard()] = Field(
        None, description="text before a query, such as 'query: ' for an E5; default: the encoder's own"
    )
    passage_prompt: Annotated[str | None, OF_SEARCH, ModelCard()] = Field(
        None, description="text before a passage; default: the encoder's own"
    )
    slice_passages: Annotated[Positive, OF_SEARCH] = Field(
        4096, description="passages that one call embeds, whose vectors are kept together"
    )
    batch_size: Annotated[Positive, OF_SEARCH] = Field(64, description="passages that the encoder reads at once")
    index_actors: Annotated[NonNegative, Place(), ReadBy("evaluate")] = Field(
        0, description="actors that hold the index in parts, spread over the nodes; 0: every node holds all of it"
    )

    @property
    def used_mode(self) -> RetrievalMode:
        return self.mode or ("lexical" if self.path is None else "hybrid")

    @property
    def used_scale(self) -> float:
        default = STATIC_SCALE if self.path is None else PRETRAINED_SCALE
        return default if self.scale is None else self.scale
