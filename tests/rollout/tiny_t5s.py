"""The other models of T5's family: mT5 and ByT5, as their folders on the hub are made."""

import json
from pathlib import Path

import torch
from sentencepiece import SentencePieceTrainer
from transformers import (
    AutoModelForSeq2SeqLM,
    ByT5Tokenizer,
    MT5Config,
    PretrainedConfig,
    T5Config,
)

from rollout.policy.fid import FidPolicy
from rollout.policy.loading import load_policy
from tests.rollout.tiny import PASSAGES, SETTINGS, TEXTS

SHAPE = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
START = {"decoder_start_token_id": 0}
END = 1


def save_sentencepiece(folder: Path) -> None:
    """`spiece.model` and nothing else: <pad> </s> <unk> first, as T5's."""
    folder.mkdir(parents=True, exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, *(passage.text for passage in PASSAGES)] * 20),
        model_prefix=str(folder / "spiece"),
        vocab_size=80,
        hard_vocab_limit=False,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2},
    )
    (folder / "spiece.vocab").unlink()


def save_mt5(folder: Path) -> Path:
    save_sentencepiece(folder)
    return _save_model(folder, MT5Config(vocab_size=200, **SHAPE, **START))


def save_byt5(folder: Path) -> Path:
    ByT5Tokenizer().save_pretrained(folder)
    return _save_model(
        folder, T5Config(vocab_size=384, tie_word_embeddings=False, tokenizer_class="ByT5Tokenizer", **SHAPE, **START)
    )


def _save_model(folder: Path, config: PretrainedConfig) -> Path:
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(config)
    own = torch.randn(config.vocab_size, config.d_model) / 4
    own[END] *= 3  # so that some responses finish
    model.lm_head.weight = torch.nn.Parameter(own)  # both have a head of their own
    model.save_pretrained(folder)
    path = folder / "config.json"
    written = {key: value for key, value in json.loads(path.read_text()).items() if key != "scale_decoder_outputs"}
    path.write_text(json.dumps(written | {"tie_word_embeddings": False}))  # as the published folders say it
    return folder


SAVED = {"mt5": save_mt5, "byt5": save_byt5}


def t5_policy(kind: str, folder: Path, **settings: object) -> FidPolicy:
    policy = load_policy(SAVED[kind](folder), SETTINGS.model_copy(update=settings), torch.float32, "cpu")
    assert isinstance(policy, FidPolicy)
    return policy
