"""What a run reads, loaded and checked before anything is started or written."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from cluster.settings.tree import Settings
from cluster.watch.trackers.services import check_installed
from reward.extra import import_reward
from rollout.data.dataset import read_prompts
from rollout.data.demo import write_demo
from rollout.data.files import shown
from rollout.data.reading import Tell
from rollout.digests import digest_of
from rollout.errors import DataError, SettingsError, writing
from rollout.language import language_of
from rollout.policy.base import Policy
from rollout.policy.loading import check_trainable
from rollout.policy.model_digest import model_digest
from rollout.policy.tiny import build_tiny_policy
from rollout.retrieval.corpus import Corpus, with_absent_gold
from rollout.retrieval.encoder import check_encoder, encoder_digest
from rollout.retrieval.open import open_corpus, open_index
from rollout.retrieval.url_source import UrlSource
from rollout.text import AUTO
from rollout.types import Prompt

GOLD_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Inputs:
    """digests: of all that the files say, by the names of their settings; they tell whether a resumed run reads the same. Under
    train.extra and valid.extra those of the columns that only a user's rewards read, where there are some. language: the one
    that the settings name, or that these texts are in. passages: how many are searched. told: all that a run
    says of them, a line each. valid: sets of held-out examples by their names, the first of which decides."""

    train: list[Prompt]
    valid: dict[str, list[Prompt]]
    digests: dict[str, str]
    language: str
    told: tuple[str, ...] = ()
    passages: int = 0

    def file_of(self, name: str) -> str:
        """What errors and failed_prompts.jsonl call a held-out set: the only one has no name of its own."""
        return f"valid.{name}" if len(self.valid) > 1 else "valid"

    @property
    def files(self) -> dict[str, list[Prompt]]:
        return {"train": self.train} | {self.file_of(name): prompts for name, prompts in self.valid.items()}

    @property
    def held_out(self) -> list[Prompt]:
        """Of all sets."""
        return list(chain.from_iterable(self.valid.values()))


def load_inputs(settings: Settings) -> Inputs:
    """Read and check examples and passages; builds the passages' index if it is new.

    Raises the LapdogError of the first thing that is wrong.
    """
    data = settings.data
    if data.train is None:
        raise SettingsError("data.train: is missing; give a .jsonl or .parquet file of examples")
    keep_extra, told = bool(settings.reward.extra), list[str]()  # nobody else looks at them
    train = read_prompts(data.train, keep_extra, told.append)
    valid = {name: read_prompts(files, keep_extra, told.append) for name, files in (data.valid or {}).items()}
    _tell_flattery(settings, train, valid, told.append)
    held_out = list(chain.from_iterable(valid.values()))
    settings = with_language(settings, [*train, *held_out])
    corpus = check_retrieval(settings, [*train, *held_out], told.append)
    digests = {
        "train": _digest(train),
        "valid": _digest(held_out if len(valid) < 2 else valid.items()),
        "passages": corpus.digest if isinstance(corpus, Corpus) else "",
    }
    if keep_extra:
        digests |= {
            f"{name}.extra": _digest(each.extra for each in read) for name, read in (("train", train), ("valid", held_out))
        }
    tell_absent_gold(shown(data.train), train, corpus, told.append)
    for name, prompts in valid.items():
        place = shown((data.valid or {})[name])
        valid[name] = tell_absent_gold(place, prompts[: settings.eval_limit], corpus, told.append)
    passages = len(corpus) if isinstance(corpus, Corpus) else 0
    return Inputs(train, valid, digests, settings.data.language, tuple(dict.fromkeys(told)), passages)


def _digest(told: Iterable[object]) -> str:
    return digest_of(map(repr, told))


def _tell_flattery(settings: Settings, train: Sequence[Prompt], valid: Mapping[str, Sequence[Prompt]], tell: Tell) -> None:
    """Of held-out examples that are trained on."""
    seen, data = {(prompt.question, prompt.answers) for prompt in train}, settings.data
    for name, prompts in valid.items():
        if both := sum((prompt.question, prompt.answers) in seen for prompt in prompts):
            place = f"{shown((data.valid or {})[name])}: {both} of {len(prompts)} examples"
            tell(f"{place} stand in {shown(data.train or ())}, too; held-out figures will flatter")


def model_digests(settings: Settings) -> dict[str, str]:
    """Of the models that a run begins with: `policy`, unless that is built, `reference` and `retriever`, where given."""
    models = {"policy": settings.policy.path, "reference": settings.learner.reference_path}
    found = {name: model_digest(path) for name, path in models.items() if path is not None}
    encoder = settings.retriever.path
    return found if encoder is None else found | {"retriever": encoder_digest(encoder)}


def check_models_rewards_and_trackers(settings: Settings) -> None:
    """Raise PolicyError for a model folder that is none, cannot be trained or is no encoder, RewardError for a reward that
    cannot be imported, SettingsError for a tracker that is not installed."""
    adapted = {settings.policy.path: settings.policy.lora.rank > 0, settings.learner.reference_path: False}
    for path in adapted:
        if path is not None:
            check_trainable(path, adapted[path])
    if settings.retriever.path is not None:
        check_encoder(settings.retriever.path)
    for extra in settings.reward.extra:
        import_reward(extra)
    check_installed(settings.trackers)


def with_language(settings: Settings, prompts: Sequence[Prompt]) -> Settings:
    """The settings with the language of these examples and the passages, unless they name one."""
    data = settings.data
    if data.language != AUTO:
        return settings
    corpus = Corpus.open(data.passages, data.cache) if data.passages is not None else None
    return of_language(settings, language_of(prompts, corpus))


def of_language(settings: Settings, language: str) -> Settings:
    return settings.model_copy(update={"data": settings.data.with_values(language=language)})


def check_retrieval(settings: Settings, prompts: list[Prompt], tell: Tell) -> Corpus | UrlSource | None:
    """The passages that are searched, if any are. tell: takes what is to be said of their files.

    Raises DataError if passages are to be read that nobody supplies, or more than the corpus holds, RetrievalError for a server
    that does not answer.
    """
    n_context = settings.policy.n_context
    if settings.retriever.url is not None:
        source = UrlSource(settings.retriever, settings.data.query)
        source.check()
        return source
    corpus = open_corpus(settings.data, n_context)
    for text in () if corpus is None else corpus.told:
        tell(text)
    if corpus is not None and settings.retriever.used_mode != "dense":
        open_index(corpus, settings.data)
    if corpus is None and n_context > 0 and (bare := next((p for p in prompts if p.passages is None), None)):
        raise DataError(
            f"data.passages: is missing, and example {bare.id!r} brings no passages itself; "
            "give a passage file, or --policy.n_context 0 to read questions alone"
        )
    return corpus


def tell_absent_gold(name: str, prompts: list[Prompt], corpus: Corpus | UrlSource | None, tell: Tell) -> list[Prompt]:
    """The prompts, marked with the gold ids that no passage has. They are told of, unless there is no passage to search.

    name: of the prompts' files.
    """
    marked = with_absent_gold(prompts, corpus)
    lacking = [prompt for prompt in marked if prompt.absent_gold and (prompt.passages is not None or corpus is not None)]
    if lacking:
        ids = list(dict.fromkeys(id for prompt in lacking for id in prompt.absent_gold))
        of = f"of {len(lacking)} of {len(prompts)} examples are of no passage, and left out of recall"
        more = ", ..." if len(ids) > GOLD_SHOWN else ""
        tell(f"{name}: {len(ids)} gold ids {of}: {', '.join(map(repr, ids[:GOLD_SHOWN]))}{more}")
    return marked


def with_demo(settings: Settings, folder: Path) -> Settings:
    """The settings with the embedded demo's files, which `make_demo` writes, and their language."""
    language = "en" if settings.data.language == AUTO else settings.data.language
    return settings.with_values(data=settings.data.with_values(**_demo_files(folder), language=language))


def is_demo(settings: Settings, folder: Path) -> bool:
    return settings.data == settings.data.with_values(**_demo_files(folder))


def make_demo(settings: Settings, folder: Path) -> Inputs:
    """Write the demo's files and read them."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
        write_demo(folder, settings.seed)
    return load_inputs(settings)


def _demo_files(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.jsonl" for name in ("train", "valid", "passages")}


def policy_folder(settings: Settings, prompts: list[Prompt], folder: Path) -> str:
    """The folder or hub name the actors load: the user's, or a small policy that is built and saved here, once."""
    if settings.policy.path is not None:
        return settings.policy.path
    if folder.is_dir():
        return str(folder)
    draft = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    policy = tiny_policy(settings, prompts)
    with writing(folder):
        policy.save(draft)
        draft.rename(folder)
    return str(folder)


def tiny_policy(settings: Settings, prompts: list[Prompt]) -> Policy:
    """The small policy that a run without a `policy.path` begins with."""
    return build_tiny_policy(settings.policy, _Texts(settings, prompts), settings.seed)


@dataclass(frozen=True, slots=True)
class _Texts:
    """What a run's tokenizer is trained on, gone through without being held."""

    settings: Settings
    prompts: Sequence[Prompt]

    def __iter__(self) -> Iterator[str]:
        data, policy = self.settings.data, self.settings.policy
        for prompt in self.prompts:
            yield from (prompt.question, *prompt.answers)
        if data.passages is not None:
            yield from Corpus.open(data.passages, data.cache).texts()
        yield from (template for template in (policy.passage_template, policy.prompt_template) if template)
