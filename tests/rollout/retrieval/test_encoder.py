import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from rollout.errors import PolicyError, SettingsError
from rollout.retrieval.encoder import encoder_digest, load_encoder, static_encoder
from rollout.retrieval.open import open_encoder
from rollout.retrieval.settings import RetrieverSettings
from tests.rollout.retrieval.encoders import WIDTH, bare_bert, sentence_encoder
from tests.rollout.tiny import tiny_policy

ROOT = Path(__file__).parents[3]
TEXTS = ["my friend saw a zebra", "nothing happened", "saffron ."]


def loaded(path, **settings):
    return load_encoder(RetrieverSettings(path=str(path), **settings), "cpu")


def bag(**settings):
    return static_encoder(tiny_policy().tokenizer, RetrieverSettings(mode="dense", **settings), "cpu")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return bare_bert(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sentence_encoder(tmp_path_factory.mktemp("sentence"), query="query : ", passage="passage : ")


def test_a_folder_is_read_with_its_own_pooling_prompts_and_normalisation(folder, bare):
    encoder, pooled = loaded(folder), loaded(bare)
    assert (encoder.width, pooled.width) == (WIDTH, WIDTH)
    assert np.allclose(np.linalg.norm(encoder.embed_passages(TEXTS), axis=1), 1, atol=1e-6)
    assert (np.linalg.norm(pooled.embed_passages(TEXTS), axis=1) > 2).all()  # of a bare model the mean, as it is
    plain = loaded(folder, query_prompt="", passage_prompt="")
    assert np.array_equal(encoder.embed_queries(["zebra"]), plain.embed_queries(["query : zebra"]))
    assert np.array_equal(encoder.embed_passages(["zebra"]), plain.embed_passages(["passage : zebra"]))


def test_settings_overrule_prompts_normalisation_and_length(folder, bare):
    assert np.array_equal(
        loaded(bare, passage_prompt="passage : ").embed_passages(["zebra"]), loaded(bare).embed_passages(["passage : zebra"])
    )
    lengths = [np.linalg.norm(each.embed_passages(TEXTS), axis=1) for each in (loaded(bare, normalize=True),)]
    assert np.allclose(lengths, 1, atol=1e-6)
    raw = loaded(folder, normalize=False).embed_passages(TEXTS)
    assert np.allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), loaded(folder).embed_passages(TEXTS), atol=1e-6)
    short = loaded(bare, max_tokens=4)  # [CLS], two words, [SEP]
    assert np.array_equal(short.embed_passages(["my friend saw"]), short.embed_passages(["my friend"]))


def test_a_querys_bits_do_not_depend_on_the_others(bare):
    encoder = loaded(bare)
    alone = [encoder.embed_queries([text])[0] for text in TEXTS]
    assert np.array_equal(encoder.embed_queries(TEXTS), np.stack(alone))


def test_a_digest_names_all_that_the_vectors_of_passages_depend_on(folder, bare, tmp_path):
    one = loaded(folder).digest
    assert one == loaded(folder).digest == loaded(folder, query_prompt="other", dtype="float16").digest
    changed = [{"max_tokens": 8}, {"normalize": False}, {"passage_prompt": "x"}, {"batch_size": 2}]
    assert len({one, loaded(bare).digest, *(loaded(folder, **each).digest for each in changed)}) == 6
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.output.dense.bias"
    other = sentence_encoder(tmp_path)
    save_file({**weights, name: weights[name] + 1}, other / "model.safetensors", {"format": "pt"})
    assert encoder_digest(str(other)) != encoder_digest(str(folder))


def test_what_lies_beside_an_encoder_is_not_digested(tmp_path):
    folder = bare_bert(tmp_path)
    before = encoder_digest(str(folder))
    (folder / "onnx").mkdir()
    for name in ("onnx/config.json", "model.onnx", "README.md", "pytorch_model.bin"):
        (folder / name).write_text("other")
    assert encoder_digest(str(folder)) == before
    (folder / "vocab.txt").write_text("a")
    assert encoder_digest(str(folder)) != before


def test_a_saved_encoder_is_the_same(bare, tmp_path):
    encoder = loaded(bare, normalize=True, passage_prompt="passage : ", max_tokens=5)
    encoder.save(tmp_path)
    again = loaded(tmp_path)
    assert np.array_equal(again.embed_passages(TEXTS), encoder.embed_passages(TEXTS))
    bag().save(tmp_path / "bag")
    assert np.array_equal(loaded(tmp_path / "bag").embed_passages(TEXTS), bag().embed_passages(TEXTS))


def test_without_a_path_a_texts_vector_is_the_mean_of_its_tokens(tmp_path):
    first, second = bag(), bag()
    assert first.width == 128 and first.digest == second.digest
    vectors = first.embed_passages(["my cousin anna", "anna my cousin", "a small grey parrot"])
    assert np.array_equal(vectors, second.embed_passages(["my cousin anna", "anna my cousin", "a small grey parrot"]))
    tokenizer = tiny_policy().tokenizer
    tokenizer(["my cousin", "anna"], padding=True, truncation=True, max_length=2)  # what it was asked last does not count
    assert static_encoder(tokenizer, RetrieverSettings(mode="dense"), "cpu").digest == first.digest
    assert np.allclose(vectors[0], vectors[1], atol=1e-6) and vectors[0] @ vectors[2] < 0.9
    assert np.array_equal(bag(max_tokens=2).embed_queries(["my cousin anna"]), bag(max_tokens=2).embed_queries(["my cousin"]))
    assert len(tiny_policy().tokenizer("my cousin anna went to the beach .")["input_ids"]) > 3  # the policy's is not cut


def cut_off(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def without_a_layer(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def without(*names):
    def remove(folder):
        for name in names:
            (folder / name).unlink()

    return remove


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut_off, "cannot be loaded"),
        (without_a_layer, "its weights lack encoder.layer.1.output.dense.weight"),
        (without("model.safetensors"), "cannot be loaded"),
        (without("config.json"), "is no model folder"),
        (without("tokenizer.json", "tokenizer_config.json"), "has no tokenizer"),
    ],
)
def test_an_incomplete_folder_is_refused_in_one_line(damage, told, tmp_path, capfd):
    damage(bare_bert(tmp_path / "encoder"))
    with pytest.raises(PolicyError) as refused:
        loaded(tmp_path / "encoder")
    line = str(refused.value)
    assert line.startswith(f"retriever.path {tmp_path / 'encoder'}: ") and told in line and "; " in line and "\n" not in line
    assert capfd.readouterr().out == ""


def test_what_is_no_encoder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tiny_policy().save(tmp_path / "t5")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no model")
    for name, told in {
        "t5": "is a t5 without modules.json, no encoder of sentences; give a sentence-transformers folder",
        "empty": "is no model folder or hub name",
        "text.txt": "is no folder, and cannot be fetched as a hub name",
        "gone": "is no folder, and cannot be fetched as a hub name",
    }.items():
        with pytest.raises(PolicyError, match=told):
            loaded(tmp_path / name)


def test_vectors_that_are_not_finite_are_refused(tmp_path):
    folder = bare_bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(PolicyError, match="gives vectors that are not finite; give another encoder"):
        loaded(folder).embed_passages(TEXTS)


@pytest.mark.integration
def test_the_library_is_loaded_only_where_vectors_are_wanted():
    code = (
        "import sys, rollout.retrieval.open; print('torch' in sys.modules); import rollout.actor, rollout.retrieval.encoder; "
    )
    code += "print('sentence_transformers' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert told.stdout == "False\nFalse\n"


def test_without_a_path_and_a_policy_there_is_no_encoder():
    with pytest.raises(SettingsError, match="retriever.path: is missing"):
        open_encoder(RetrieverSettings(mode="dense"), None, "cpu")
