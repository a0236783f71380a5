"""Texts -> vectors, by a sentence-transformers encoder with its own pooling, prompts and normalisation.

The library is imported only where vectors are wanted: with its dependencies it takes a second and 60 MB.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from rollout.digests import digest_of, digest_of_file
from rollout.errors import PolicyError
from rollout.policy.model_files import BROKEN, read_config, unreadable
from rollout.retrieval.settings import RetrieverSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SETTING = "retriever.path"
STATIC_WIDTH, STATIC_SPREAD, STATIC_SEED = 128, 0.1, 0
OTHER_FORMATS = ("*.onnx", "*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*")
PICKLED = "pytorch_model*.bin"  # of the folder itself: not read beside weights as safetensors
READ = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")
REMEDY = "give a sentence-transformers folder or hub name"


class Encoder:
    """name: in errors. width: D of its vectors. digest: of all that the vectors of passages depend on."""

    def __init__(self, name: str, model: "SentenceTransformer", settings: RetrieverSettings, content: str):
        """content: digest of the model's files, or of what it was made from."""
        width = model.get_embedding_dimension()
        if width is None:
            raise PolicyError(f"{name}: gives no vector for a text; {REMEDY}")
        _configure(model, settings)
        self.name, self.width, self.model, self._batch_size = name, width, model.eval(), settings.batch_size
        prompt = model.prompts.get("document")
        told = [content, settings.max_tokens, settings.normalize, prompt, settings.batch_size]
        self.digest = digest_of([json.dumps(told)])[:16]

    @property
    def bytes(self) -> int:
        """Of its weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, D]. One text at a time: its bits must not depend on which others stand beside it."""
        return self._checked(self.model.encode_query(list(texts), batch_size=1, show_progress_bar=False), len(texts))

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, D], a function of these texts together: padding to the longest of a batch moves the last bits."""
        vectors = self.model.encode_document(list(texts), batch_size=self._batch_size, show_progress_bar=False)
        return self._checked(vectors, len(texts))

    def save(self, folder: Path) -> None:
        """As a folder that sentence-transformers opens, with the prompts, the length and the normalisation in use."""
        self.model.save_pretrained(str(folder), create_model_card=False)

    def _checked(self, vectors: np.ndarray, count: int) -> np.ndarray:
        found = vectors.astype(np.float32, copy=False).reshape(count, self.width)
        if not np.isfinite(found).all():
            raise PolicyError(f"{self.name}: gives vectors that are not finite; give another encoder")
        return found


def load_encoder(settings: RetrieverSettings, device: str) -> Encoder:
    """The encoder at `settings.path`. Raises PolicyError unless it is one, and complete."""
    name, folder = f"{SETTING} {settings.path}", check_encoder(str(settings.path))
    from sentence_transformers import SentenceTransformer

    float32 = {"dtype": torch.float32, "weights_only": True}
    try:
        with _without_reports():
            model = SentenceTransformer(
                str(folder), device=device, trust_remote_code=False, local_files_only=True, model_kwargs=float32
            )
            missing = _missing_weight(folder, model)
    except BROKEN as error:
        raise unreadable(settings.path, "cannot be loaded", error, REMEDY, SETTING) from error
    if missing is not None:
        raise PolicyError(f"{name}: its weights lack {missing}; {REMEDY} that is complete")
    if isinstance(model.tokenizer, PreTrainedTokenizerBase) and len(model.tokenizer) <= len(model.tokenizer.all_special_ids):
        raise PolicyError(f"{name}: has no tokenizer; put its tokenizer.json there")
    return Encoder(name, model, settings, _content(folder))


def static_encoder(tokenizer: PreTrainedTokenizerBase, settings: RetrieverSettings, device: str) -> Encoder:
    """A bag of tokens: the normalised mean of random vectors of the policy's tokens. A policy is searched for alike by all who
    open it, so that nothing but its tokens may choose them: not the seed of a run, which an export does not know."""
    name = "retriever.mode: the bag of the policy's tokens"
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise PolicyError(f"{name} cannot be made of a {type(tokenizer).__name__}; give retriever.path")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding
    from tokenizers import Tokenizer

    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # the policy's must not begin to cut texts
    own.no_padding()  # which is as its last call left it
    own.no_truncation()
    content = digest_of([f"{STATIC_WIDTH} {STATIC_SEED} {own.to_str()}"])
    rng, rows = torch.Generator().manual_seed(STATIC_SEED), 1 + max(own.get_vocab().values())
    weights = STATIC_SPREAD * torch.randn(rows, STATIC_WIDTH, generator=rng)
    model = SentenceTransformer(modules=[StaticEmbedding(own, weights), Normalize()], device=device)
    return Encoder(name, model, settings, content)


def check_encoder(path: str) -> Path:
    """The folder of an encoder, or of the snapshot of a hub name. Raises PolicyError for what is none by its config.

    A bare model is one if all its tokens see each other: it is read as sentence-transformers reads it, by the mean of its
    states.
    """
    folder = _folder(path)
    if not (folder / "modules.json").is_file():
        config = read_config(folder, SETTING)
        one_way = config.is_encoder_decoder or getattr(config, "is_decoder", False)
        if one_way or config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            kind = f"is a {config.model_type} without modules.json, no encoder of sentences"
            raise PolicyError(f"{SETTING} {path}: {kind}; {REMEDY}")
    return folder


def encoder_digest(path: str) -> str:
    """Of the files of an encoder, wherever they lie. Raises PolicyError for a hub name that cannot be fetched."""
    return _content(_folder(path))


def _configure(model: "SentenceTransformer", settings: RetrieverSettings) -> None:
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    first = model[0]
    if isinstance(first, StaticEmbedding):
        first.tokenizer.enable_truncation(settings.max_tokens)
    else:
        model.max_seq_length = min(settings.max_tokens, model.max_seq_length or settings.max_tokens)
    last = len(model) - 1
    if settings.normalize is False and isinstance(model[last], Normalize):
        del model[last]
    elif settings.normalize and not isinstance(model[last], Normalize):
        model.append(Normalize())
    # the library fills "document" in with an empty prompt, behind which it would not look at the others
    of_passages = next((model.prompts[name] for name in ("document", "passage", "corpus") if model.prompts.get(name)), "")
    model.prompts["document"] = of_passages if settings.passage_prompt is None else settings.passage_prompt
    if settings.query_prompt is not None:
        model.prompts["query"] = settings.query_prompt


def _folder(path: str) -> Path:
    """The folder itself, or the snapshot of a hub name."""
    if Path(path).is_dir():
        return Path(path)
    try:
        folder = Path(snapshot_download(path, ignore_patterns=[*OTHER_FORMATS, PICKLED]))
        complete = any(folder.glob("*.safetensors"))
        return folder if complete else Path(snapshot_download(path, ignore_patterns=list(OTHER_FORMATS)))
    except BROKEN as error:
        raise unreadable(path, "is no folder, and cannot be fetched as a hub name", error, REMEDY, SETTING) from error


def _missing_weight(folder: Path, model: "SentenceTransformer") -> str | None:
    """A weight that transformers drew at random, as no file has it; poolers are not read."""
    inner = model.transformers_model
    if inner is None:
        return None
    modules = folder / "modules.json"
    inside = json.loads(modules.read_text(encoding="utf-8"))[0]["path"] if modules.is_file() else ""
    _, report = type(inner).from_pretrained(folder / inside, device_map="meta", output_loading_info=True)
    return next((name for name in sorted(report["missing_keys"]) if not name.startswith("pooler.")), None)


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """Of transformers, which tells in a table what an error here says in a line."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)


def _content(folder: Path) -> str:
    """SHA-256 of names and contents of what is read."""
    unread = (*OTHER_FORMATS, PICKLED) if any(folder.glob("*.safetensors")) else OTHER_FORMATS
    names = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.suffix in READ and file.is_file())
    read = [name for name in names if not any(fnmatch(str(name), pattern) for pattern in unread)]
    return digest_of(f"{name} {digest_of_file(folder / name)}" for name in read)
