"""Train a T5-style tokenizer (unigram, <pad> </s> <unk> first, <extra_id_i> last) on a run's own texts."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, T5Tokenizer

EXTRA_IDS = 100


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A tokenizer of at most `vocab_size` pieces; small data yields fewer."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - EXTRA_IDS, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = [tuple(piece) for piece in _trained_pieces(tokenizer)]
    extra = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(EXTRA_IDS))]
    return T5Tokenizer(vocab=pieces + extra, extra_ids=EXTRA_IDS)


def _trained_pieces(tokenizer: Tokenizer) -> list[list]:
    return json.loads(tokenizer.to_str())["model"]["vocab"]
