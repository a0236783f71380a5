"""A model by its content, wherever it lies."""

import json
from pathlib import Path

from huggingface_hub import snapshot_download

from rollout.digests import digest_of, digest_of_file
from rollout.policy import adapters
from rollout.policy.model_files import BROKEN, unreadable

BESIDE_WEIGHTS = ("*.json", "*.model", "*.jinja", "vocab.txt", "merges.txt")  # config and tokenizer
WEIGHTS = ("*.safetensors", "*.bin")  # of two kinds the first is what is read


def model_digest(path: str | Path) -> str:
    """SHA-256 of names and contents of config, weights and tokenizer; of adapters together with the model that they belong to,
    whose place does not count. Raises PolicyError for files of a hub name that cannot be fetched."""
    folder = _folder(path)
    told = [f"{file.name} {_content(file)}" for file in _files(folder)]
    if adapters.are_in(folder):
        told.append(model_digest(adapters.base_model(folder)))
    return digest_of(told)


def _folder(path: str | Path) -> Path:
    """The folder itself, or the snapshot of a hub name."""
    if Path(path).is_dir():
        return Path(path)
    try:
        for weights in WEIGHTS:
            folder = Path(snapshot_download(str(path), allow_patterns=[*BESIDE_WEIGHTS, weights]))
            if any(folder.glob(weights)):
                break
    except BROKEN as error:
        raise unreadable(path, "its files cannot be fetched", error, "check the path, or the way to the hub") from error
    return folder


def _files(folder: Path) -> list[Path]:
    weights = next((files for kind in WEIGHTS if (files := list(folder.glob(kind)))), [])
    beside = [file for pattern in BESIDE_WEIGHTS for file in folder.glob(pattern)]
    return sorted(file for file in (*weights, *beside) if file.is_file() and not file.name.startswith("."))


def _content(file: Path) -> str:
    if file.name == adapters.CONFIG:
        settings = json.loads(file.read_text(encoding="utf-8")) | {adapters.BASE: None}
        return json.dumps(settings, sort_keys=True)
    return digest_of_file(file)
