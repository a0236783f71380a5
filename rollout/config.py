"""Settings of everything that turns a data file into groups: data, policy, sampling."""

from datetime import date
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from rollout.data.file_settings import Files, HeldOutFiles
from rollout.retrieval.index import SHARD_PASSAGES
from rollout.setting_tags import ModelCard, Place, ReadBy
from rollout.text import AUTO, LANGUAGES, UNKNOWN, TextRules

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
QueryPart = Literal["persona", "all", "last_turn", "persona+last_turn"]

OF_A_POLICY = ReadBy("chat", "evaluate", "export")
OF_SEARCH = ReadBy("chat", "evaluate", "export", "retrieve")


def whole_above_one(amount: float) -> float:
    """Ray shares a CPU or GPU out in parts, but gives several of them whole only."""
    if amount > 1 and amount != int(amount):
        raise ValueError("above 1 it must be a whole number")
    return amount


Amount = Annotated[float, Field(ge=0), AfterValidator(whole_above_one)]


class Section(BaseModel):
    """A frozen group of settings that knows no unknown names, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def with_values(self, **values: Any) -> Self:
        """The same with other values, validated together."""
        return type(self).model_validate({**dict(self), **values})


class DataSettings(Section):
    train: Annotated[Files | None, Place()] = Field(
        None, description="training examples: .jsonl or .parquet files, patterns, folders; without it the embedded demo is used"
    )
    valid: Annotated[HeldOutFiles | None, Place()] = Field(
        None,
        description="held-out examples for evaluation, several files as a set each, the first of which decides which policy is "
        "best; without it nothing is evaluated",
    )
    passages: Annotated[Files | None, Place()] = Field(None, description="passages to retrieve from, with id, title, text")
    query: Annotated[QueryPart, OF_A_POLICY, ModelCard(always=True)] = Field(
        "persona+last_turn", description="part of the question that is the search query: persona, last_turn, both, or all"
    )
    language: Annotated[str, OF_SEARCH, ModelCard(always=True)] = Field(
        AUTO,
        description="language by which retrieval and metrics tell words: auto is decided once, from the data; otherwise a code "
        "of ISO 639-1, as en, zh, ja, ar, or und for one that has none",
    )
    cache: Annotated[Path, Place(), ReadBy("chat", "evaluate", "retrieve")] = Field(
        Path("~/.cache/lapdog-ray"), description="folder of corpora and indexes, named by their content"
    )
    shard_passages: Annotated[Positive, ReadBy("chat", "evaluate", "retrieve")] = Field(
        SHARD_PASSAGES, description="passages that BM25 indexes at once: memory grows with them, results do not depend on them"
    )
    max_prompt_tokens: Annotated[Positive | None, OF_A_POLICY] = Field(
        None, description="longest prompt in tokens: of a causal LM all of it, of a T5 the question with one passage"
    )
    too_long: Annotated[Literal["drop", "cut"], OF_A_POLICY] = Field(
        "drop",
        description="what becomes of an example whose prompt is longer; drop: it is left out; cut: passages give way, "
        "then the question's beginning",
    )

    @property
    def cut_prompts_at(self) -> int | None:
        """Tokens beyond which a prompt is cut when it is read; None where none is."""
        return self.max_prompt_tokens if self.too_long == "cut" else None

    @property
    def text_rules(self) -> TextRules:
        """Raises ValueError while the language is `auto`."""
        return TextRules.of(self.language)

    @field_validator("language")
    @classmethod
    def _language_is_known(cls, language: str) -> str:
        if language not in LANGUAGES | {AUTO, UNKNOWN}:
            raise ValueError("it is no code of ISO 639-1; give one as en, zh, ja, ko, or auto")
        return language


class TinySettings(Section):
    """A T5 built from scratch where `policy.path` is not given; its tokenizer is trained on the training data."""

    d_model: Positive = Field(128, description="width of the model")
    d_kv: Positive = Field(32, description="width of one attention head")
    heads: Positive = Field(4, description="attention heads")
    d_ff: Positive = Field(384, description="width of the feed-forward layers")
    layers: Positive = Field(2, description="encoder layers, and as many decoder layers")
    vocab_size: Annotated[int, Field(ge=200)] = Field(1000, description="pieces of the tokenizer, <extra_id_i> included")


class LoraSettings(Section):
    """Low-rank adapters by peft on every linear layer but the head (Hu et al. 2021, arXiv:2106.09685)."""

    rank: NonNegative = Field(0, description="rank of the adapters; above 0 only they are trained")
    alpha: Positive = Field(32, description="the adapters' output is scaled by alpha / rank")


class PolicySettings(Section):
    """Templates that are not set follow the model's family: `loading.with_family_templates`."""

    path: Annotated[str | None, Place(), OF_A_POLICY, ModelCard(always=True)] = Field(
        None, description="folder or hub name of a T5 or a causal LM; without it policy.tiny is built"
    )
    tiny: TinySettings = TinySettings()
    lora: LoraSettings = LoraSettings()
    dtype: Annotated[Literal["float32", "bfloat16"], ReadBy("chat", "evaluate")] = Field(
        "float32", description="dtype of the arithmetic; the learner's own weights stay float32"
    )
    n_context: Annotated[NonNegative, OF_A_POLICY, ModelCard(always=True)] = Field(
        4, description="passages read for a prompt; 0 reads the question alone"
    )
    max_passage_tokens: Annotated[Positive, OF_A_POLICY] = Field(
        128, description="longest passage text in tokens; the question is never cut"
    )
    system_prompt: Annotated[str | None, OF_A_POLICY] = Field(
        None, description="system message of a causal LM with a chat template; default: its own"
    )
    prompt_template: Annotated[str | None, OF_A_POLICY] = Field(
        None,
        description='wording of the question; default: "dialog with R\'s persona: {question} R:" for a T5, '
        '"{question}" for a chat model, "{question} R:" for any other causal LM',
    )
    passage_template: Annotated[str | None, OF_A_POLICY] = Field(
        None, description="wording of a passage, from {title} and {text}; for a T5 also {query}, the worded question"
    )
    response_template: str | None = Field(
        None,
        description='wording of a gold answer; default: "{answer}", or " {answer}" for a causal LM that is no chat model',
    )
    chat_template_args: Annotated[dict[str, Any], OF_A_POLICY] = Field(
        {}, description="further values that the chat template reads, such as {enable_thinking: false}"
    )
    template_date: Annotated[date | None, OF_A_POLICY] = Field(
        None, description="the day that a chat template writes which asks for today's; default: that of the run's start"
    )
    thinking: Annotated[Literal["strip", "keep"], OF_A_POLICY] = Field(
        "strip", description="whether thoughts, as <think>...</think>, are cut from replies before they are scored and shown"
    )

    @property
    def name(self) -> str:
        return self.path or "small T5, from scratch"

    @field_validator("prompt_template")
    @classmethod
    def _question_is_named(cls, template: str | None) -> str | None:
        return None if template is None else check_template(template, {"question"})

    @field_validator("passage_template")
    @classmethod
    def _passage_is_named(cls, template: str | None) -> str | None:
        return None if template is None else check_template(template, {"text"}, {"query", "title"})

    @field_validator("response_template")
    @classmethod
    def _answer_is_named(cls, template: str | None) -> str | None:
        return None if template is None else check_template(template, {"answer"})


class RolloutSettings(Section):
    group_size: Annotated[Positive, ModelCard(always=True)] = Field(8, description="responses sampled for each prompt (G)")
    prompts_per_step: Annotated[Positive, ModelCard(always=True)] = Field(16, description="prompts in one update (P)")
    prompts_per_call: Positive = Field(8, description="most prompts that one call to a sampler decodes together")
    temperature: Annotated[float, Field(gt=0), ReadBy("chat --sample"), ModelCard(always=True)] = Field(
        1.0, description="sampling temperature; sampler and learner take log-probs at it"
    )
    top_p: Annotated[float, Field(gt=0, le=1), ReadBy("chat --sample")] = Field(
        1.0,
        description="sample from the smallest set of tokens with this probability; 1 is off, below it the kept mass is logged",
    )
    dynamic_sampling: NonNegative = Field(
        0, description="extra batches of prompts that a step may sample to replace groups whose rewards are all equal; 0: none"
    )
    max_new_tokens: Annotated[Positive, OF_A_POLICY] = Field(
        32, description="longest response in tokens, end token included; longer gold answers are cut there, too"
    )


def check_template(template: str, required: set[str], optional: frozenset[str] | set[str] = frozenset()) -> str:
    """Return `template` if it names all of `required` and nothing beyond `optional`; raise ValueError otherwise."""
    try:
        named = set(template_fields(template))
    except ValueError as error:
        raise ValueError(f"is no template: {error}; double braces that are meant as text") from error
    if missing := required - named:
        raise ValueError(f"lacks {{{sorted(missing)[0]}}}; put it where that text belongs")
    if unknown := named - required - set(optional):
        raise ValueError(f"has {{{sorted(unknown)[0]}}}; only {sorted(required | set(optional))} can be filled in")
    try:
        template.format(**dict.fromkeys(named, "text"))
    except (ValueError, LookupError) as error:
        raise ValueError(f"cannot be filled with text: {error}; name the fields alone") from error
    return template


def template_fields(template: str) -> list[str]:
    """The names that are filled in, as often as they are."""
    return [name for _, name, _, _ in Formatter().parse(template) if name is not None]
