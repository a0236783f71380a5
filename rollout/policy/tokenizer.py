"""Train a T5-style tokenizer (unigram, <pad> </s> <unk> first, <extra_id_i> last) on a run's own texts."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, T5Tokenizer

EXTRA_IDS = 100
SPECIAL = ["<pad>", "</s>", "<unk>"]
TEXTS = 1000  # that are encoded at once


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A unigram tokenizer of at most `vocab_size` pieces, <extra_id_i> included; small data yields fewer.

    Byte-pair merges find the pieces, their counts in that segmentation give the unigram scores: the unigram trainer's own
    search weighs every distinct word alike, and on small data it splits frequent words into letters.

    texts: gone through twice, and held only where they are an iterator.
    """
    corpus = list(texts) if isinstance(texts, Iterator) else texts
    merges = Tokenizer(models.BPE(unk_token="<unk>"))
    merges.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Punctuation(),
        ]
    )
    size = vocab_size - EXTRA_IDS
    merges.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, show_progress=False))
    again = iter(corpus)
    parts = iter(lambda: list(islice(again, TEXTS)), [])
    counts = Counter(piece for part in parts for encoding in merges.encode_batch(part) for piece in encoding.tokens)
    total = sum(counts.values())
    vocabulary = merges.get_vocab()
    pieces = [piece for piece in sorted(vocabulary, key=vocabulary.__getitem__) if piece not in SPECIAL]
    used = [piece for piece in pieces if counts[piece] or len(piece) == 1]
    scored = [(piece, math.log((counts[piece] + 0.5) / total)) for piece in used]
    special = [(piece, 0.0) for piece in SPECIAL]
    extra = [(f"<extra_id_{i}>", 0.0) for i in reversed(range(EXTRA_IDS))]
    return T5Tokenizer(vocab=special + scored + extra, extra_ids=EXTRA_IDS)
