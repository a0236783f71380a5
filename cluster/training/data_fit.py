"""What the policy makes of the data: answers that it cannot say, prompts that it cannot read."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cluster.settings.tree import Settings
from cluster.training.inputs import Inputs
from rollout.config import PolicySettings, template_fields
from rollout.errors import DataError, PolicyError, SettingsError
from rollout.policy.base import Policy
from rollout.policy.loading import PolicySkeleton
from rollout.retrieval.open import LEXICAL, open_retriever
from rollout.types import Prompt

MOST_UNSAYABLE = 0.2
MEASURED_AT_ONCE = 256


def fitted(settings: Settings, inputs: Inputs, policy: Policy | PolicySkeleton) -> Inputs:
    """The inputs without the examples that `data.too_long drop` leaves out, and what is to be told of them.

    Raises SettingsError, DataError or PolicyError for prompts longer than the model reads, and where it could not say more than
    a fifth of a file's answers.
    """
    kept, told = {}, []
    for name, prompts in inputs.files.items():
        kept[name], told_of_file = fitted_prompts(settings, f"data.{name}", prompts, policy)
        told += told_of_file
    valid = {name: kept[inputs.file_of(name)] for name in inputs.valid}
    return replace(inputs, train=kept["train"], valid=valid, told=(*inputs.told, *told))


def fitted_prompts(
    settings: Settings,
    place: str,
    prompts: list[Prompt],
    policy: Policy | PolicySkeleton,
    most_unsayable: float = MOST_UNSAYABLE,
) -> tuple[list[Prompt], list[str]]:
    """As `fitted`, of one file, which messages call `place`. most_unsayable: share of the answers that it could not say."""
    longest, told = longest_prompt(settings, policy), []
    if longest is not None and settings.data.cut_prompts_at is None and prompts:
        lengths = dict(_too_long(settings, policy, prompts, longest))
        if lengths:
            told.append(_dropped(settings, place, prompts, lengths, longest))
            prompts = [prompt for i, prompt in enumerate(prompts) if i not in lengths]
        if not prompts:
            raise DataError(f"{told[-1]}, which leaves none; raise data.max_prompt_tokens")
    return prompts, told + _unsayable(settings, policy, place, prompts, most_unsayable)


def longest_prompt(settings: Settings, policy: Policy | PolicySkeleton) -> int | None:
    """The setting's bound, or what the model's positions leave beside a response."""
    wanted, positions, response = settings.data.max_prompt_tokens, policy.positions, settings.rollout.max_new_tokens
    left = None if positions is None else positions - response
    if left is not None and left < 1:
        raise SettingsError(f"rollout.max_new_tokens: {response} leave no room in the model's {positions} positions; lower it")
    if wanted is not None and left is not None and wanted > left:
        raise SettingsError(
            f"data.max_prompt_tokens: {wanted} and rollout.max_new_tokens {response} exceed the model's {positions} positions; "
            f"give {left} or fewer"
        )
    return left if wanted is None else wanted


def _too_long(
    settings: Settings, policy: Policy | PolicySkeleton, prompts: Sequence[Prompt], longest: int
) -> Iterator[tuple[int, int]]:
    """(place, tokens) of each prompt that is longer. No token is less than a byte, so most are known to fit unread; a retrieved
    passage is taken to have no longer a title than a text. Corpora are searched by words alone: nothing is embedded here."""
    wording = max(map(len, policy.contexts(["?"], [()])[0]))
    suspects = [i for i, prompt in enumerate(prompts) if wording + _most_tokens(settings.policy, prompt) > longest]
    if not suspects:
        return
    by_words = LEXICAL if settings.retriever.url is None else settings.retriever
    retriever = open_retriever(settings.data, settings.policy.n_context, by_words)
    for begin in range(0, len(suspects), MEASURED_AT_ONCE):
        places = suspects[begin : begin + MEASURED_AT_ONCE]
        some = [prompts[i] for i in places]
        passages = [retrieval.passages for retrieval in retriever.retrieve(some)]
        for i, context in zip(places, policy.contexts([prompt.question for prompt in some], passages), strict=True):
            tokens = max(map(len, context))
            if tokens > longest:
                yield i, tokens


def _most_tokens(policy: PolicySettings, prompt: Prompt) -> int:
    """Bytes of the question and of its passages, of whose texts only so many tokens are read, as often as the templates name
    them."""
    limit, count, template = policy.max_passage_tokens, policy.n_context, policy.passage_template or ""
    asked, told = Counter(template_fields(policy.prompt_template or "")), Counter(template_fields(template))
    wording = len(template.encode()) + max(0, told["query"] - 1) * len((policy.prompt_template or "").encode())
    passages = count * ((told["title"] + told["text"]) * limit + wording)
    if prompt.passages is not None:
        texts = [(len(passage.title.encode()), len(passage.text.encode())) for passage in prompt.passages[:count]]
        passages = sum(told["title"] * title + told["text"] * min(limit, text) + wording for title, text in texts)
    return asked["question"] * max(1, told["query"]) * len(prompt.question.encode()) + passages


def _dropped(settings: Settings, place: str, prompts: Sequence[Prompt], lengths: dict[int, int], longest: int) -> str:
    """What to tell of those that are left out. Raises DataError where no setting allows that."""
    i, tokens = next(iter(lengths.items()))
    first = f"{prompts[i].id!r} has {tokens} tokens"
    if settings.data.max_prompt_tokens is None:
        response = settings.rollout.max_new_tokens
        raise DataError(
            f"{place}: the prompt of example {first}, and the model reads {longest} beside a response of {response}; "
            f"give data.max_prompt_tokens {longest} and data.too_long drop or cut, or lower policy.n_context"
        )
    count = f"{len(lengths)} of {len(prompts)} examples"
    return f"{place}: {count} are left out, whose prompts exceed data.max_prompt_tokens {longest}; the first, {first}"


def _unsayable(
    settings: Settings, policy: Policy | PolicySkeleton, place: str, prompts: Sequence[Prompt], most: float
) -> list[str]:
    answers = [answer for prompt in prompts for answer in prompt.answers]
    lost = [answer for answer, lacks in zip(answers, policy.unsayable(answers), strict=True) if lacks] if answers else []
    if not lost:
        return []
    share = len(lost) / len(answers)
    problem = f"{len(lost)} of {len(answers)} gold answers of {place} ({share:.1%}) have characters that the model cannot say"
    example = " ".join(lost[0].split())[:60]
    if share <= most:
        return [f"{problem}; the first is {example!r}"]
    remedy = (
        "raise policy.tiny.vocab_size"
        if settings.policy.path is None
        else "give a model whose tokenizer has them, such as mT5 or ByT5"
    )
    raise PolicyError(f"policy {settings.policy.name}: {problem}, such as {example!r}; {remedy}")
