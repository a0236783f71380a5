"""Encoders small enough for every test, as sentence-transformers folders and as bare models."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = "query : passage my friend saw a zebra violin glacier saffron lantern in town nothing happened on day .".split()
WIDTH = 32


def bare_bert(folder: Path, width: int = WIDTH) -> Path:
    """A model without modules.json, as Contriever's."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes))
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
    return folder


def sentence_encoder(folder: Path, **prompts: str) -> Path:
    """One whose vectors are the first token's state at length 1."""
    bare_bert(folder / "bare")
    modules = [Transformer(str(folder / "bare")), Pooling(WIDTH, "cls"), Normalize()]
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save_pretrained(str(folder / "encoder"))
    return folder / "encoder"
