import pytest
from transformers import AutoTokenizer

from rollout.policy.tokenizer import EXTRA_IDS, train_tokenizer
from tests.rollout.tiny import TEXTS


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


def test_special_tokens_stand_where_t5_has_them(tokenizer):
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "</s>", "<unk>"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    last = list(range(len(tokenizer) - EXTRA_IDS, len(tokenizer)))
    assert tokenizer.convert_ids_to_tokens(last) == [f"<extra_id_{i}>" for i in reversed(range(EXTRA_IDS))]


def test_the_vocabulary_stays_within_its_size(tokenizer):
    assert len(tokenizer) <= 300
    assert len(train_tokenizer(TEXTS, 200)) <= 200


def test_equal_texts_give_equal_tokenizers(tokenizer):
    assert train_tokenizer(iter(TEXTS), 300).get_vocab() == tokenizer.get_vocab()


def test_frequent_words_stay_whole():
    tokenizer = train_tokenizer(["the beach trip", "my cousin went"] * 20, 300)
    assert tokenizer.tokenize("my cousin went") == ["▁my", "▁cousin", "▁went"]


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_the_text_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_letter_never_seen_is_unknown(tokenizer):
    assert tokenizer("ß", add_special_tokens=False)["input_ids"][-1] == tokenizer.unk_token_id


def test_offsets_point_into_the_text(tokenizer):
    text = "my cousin anna went ."
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    starts, ends = zip(*offsets, strict=True)
    assert list(ends) == sorted(ends) and ends[-1] == len(text) and starts[0] == 0


def test_a_saved_tokenizer_loads_as_it_was(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast and loaded.get_vocab() == tokenizer.get_vocab()
    assert [loaded(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
