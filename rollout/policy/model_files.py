"""Model folders and hub names, read by transformers' own classes: code that a folder brings is never run."""

import re
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, ByT5Tokenizer, PretrainedConfig, PreTrainedTokenizerBase

from rollout.errors import PolicyError, first_line
from rollout.policy.family import Family

transformers.utils.logging.disable_progress_bar()  # actors' logs are read by people

BROKEN = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)
COMPLETE = "give a complete model folder"
READS_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}  # a module and its package
NAMED_PACKAGE = re.compile(r"No module named '([\w.]+)'|pip install (?:-U )?'?([\w-]+)|requires the (\w+) library")


def read_config(path: str | Path, of: str = "policy") -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except BROKEN as error:
        raise unreadable(path, "is no model folder or hub name", error, "check the path", of) from error


def read_tokenizer(path: str | Path, family: Family) -> PreTrainedTokenizerBase:
    """Raises PolicyError for one that is missing, or that cannot tell where in a text its tokens stand."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except BROKEN as error:
        raise unreadable(path, "its tokenizer cannot be loaded", error) from error
    if len(tokenizer) <= family.made_up_tokens:
        raise PolicyError(f"policy {path}: has no tokenizer; put its tokenizer.json or spiece.model there")
    if not tokenizer.is_fast and not isinstance(tokenizer, ByT5Tokenizer):
        raise PolicyError(f"policy {path}: its tokenizer tells no offsets; save it as tokenizer.json")
    return tokenizer


def check_vocabulary(path: str | Path, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """rows: of the model's embedding. Raises PolicyError for a token that has none."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise PolicyError(
            f"policy {path}: its tokenizer has {largest + 1} tokens, its embedding {rows} rows; "
            "give the tokenizer of this model, or resize_token_embeddings and save it again"
        )


def unreadable(
    path: str | Path | None, problem: str, error: Exception, remedy: str = COMPLETE, of: str = "policy"
) -> PolicyError:
    """What transformers could not read, in one line: code of the folder's own and a missing package are named as such.

    of: what the line calls the model at `path`."""
    place = f"{of} {path}"
    if "trust_remote_code" in str(error):
        return PolicyError(
            f"{place}: needs code that it brings itself, which is never run; give a model that transformers knows"
        )
    if (package := missing_package(error)) is not None:
        return PolicyError(f"{place}: needs the package {package}, which is not installed; pip install {package}")
    return PolicyError(f"{place}: {problem} ({first_line(error)}); {remedy}")


def missing_package(error: Exception) -> str | None:
    """The one for want of which an import or a tokenizer failed, if it was that.

    Where a SentencePiece file cannot be read, transformers asks for tiktoken, whatever was missing.
    """
    if "tiktoken" in str(error):
        lacking = [package for module, package in READS_SENTENCEPIECE.items() if not _is_installed(module)]
        return next(iter(lacking), None if _is_installed("tiktoken") else "tiktoken")
    if not isinstance(error, ImportError):
        return None
    named = NAMED_PACKAGE.search(str(error))
    return next(filter(None, named.groups()), None) if named else None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
