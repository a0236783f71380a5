"""mT5 and ByT5 are readers as T5 is: loaded, cut, sampled, scored, trained, saved, adapted, measured."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from learner.config import LearnerSettings
from learner.learner import Learner
from rollout.errors import PolicyError
from rollout.policy import model_files
from rollout.policy.decoding import Decoding
from rollout.policy.families import family_of
from rollout.policy.family import Lengths
from rollout.policy.family_t5 import T5
from rollout.policy.loading import load_policy, merge_adapters, skeleton
from tests.learner.activations import batch, kept_bytes
from tests.learner.examples import ROLLOUT, check_trained_and_saved
from tests.rollout.tiny import PROMPTS, SETTINGS, TEXTS, contexts_of, padded, sampled
from tests.rollout.tiny_t5s import SAVED, save_mt5, t5_policy

every_kind = pytest.mark.parametrize("kind", list(SAVED))


@every_kind
def test_greedy_replies_are_those_of_transformers(kind, tmp_path):
    policy = t5_policy(kind, tmp_path, n_context=1)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert family_of(plain.config) is T5 and not torch.equal(plain.lm_head.weight, plain.shared.weight)
    contexts = policy.contexts([prompt.question for prompt in PROMPTS], [()] * len(PROMPTS))
    for (row,), [response] in zip(contexts, policy.sample(contexts, 1, Decoding(8)).responses, strict=True):
        ids = torch.from_numpy(row.astype(np.int64))[None]
        generated = plain.generate(ids, do_sample=False, max_new_tokens=8, num_beams=1)[0, 1:]
        assert response.token_ids.tolist() == generated.tolist()


@every_kind
def test_sampled_logprobs_equal_scores(kind, tmp_path):
    policy = t5_policy(kind, tmp_path)
    groups = sampled(policy, max_new_tokens=8)
    ids, mask = padded(groups)
    with torch.no_grad():
        scored = policy.token_logprobs(contexts_of(policy), ids, 1.0).logprobs[mask]
    recorded = np.concatenate([r.sampler_logprobs for group in groups for r in group])
    torch.testing.assert_close(scored, torch.from_numpy(recorded), rtol=1e-4, atol=1e-4)


@every_kind
def test_it_trains_and_comes_back_from_its_checkpoint(kind, tmp_path):
    learner = Learner(t5_policy(kind, tmp_path / "base"), LearnerSettings(kl_coef=0.1), ROLLOUT, SETTINGS, {})
    check_trained_and_saved(learner, tmp_path / "saved")
    again = load_policy(tmp_path / "saved" / "policy", SETTINGS, torch.float32, "cpu")
    assert (again.weights(torch.float32) == learner.weights().values).all()
    assert all(np.array_equal(a, b) for a, b in zip(contexts_of(again)[0], contexts_of(learner.policy)[0], strict=True))
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved" / "policy")
    assert torch.equal(plain.lm_head.weight, again.model.lm_head.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved" / "policy").get_vocab() == again.tokenizer.get_vocab()


@every_kind
def test_it_takes_adapters(kind, tmp_path):
    lora = SETTINGS.lora.model_copy(update={"rank": 2})
    policy = t5_policy(kind, tmp_path / "base", lora=lora)
    policy.save(tmp_path / "adapters")
    merge_adapters(tmp_path / "adapters", tmp_path / "merged")
    merged = load_policy(tmp_path / "merged", SETTINGS, torch.float32, "cpu")
    ids = torch.tensor([[[5, 6, 7, 1]]])
    with torch.no_grad():
        ours, theirs = (p.token_logprobs(contexts_of(p)[:1], ids, 1.0).logprobs for p in (policy, merged))
    torch.testing.assert_close(ours, theirs)


@every_kind
def test_its_sizes_are_known_without_its_weights(kind, tmp_path):
    policy = t5_policy(kind, tmp_path)
    outline = skeleton(tmp_path, SETTINGS)
    assert [p.shape for p in outline.model.parameters()] == [p.shape for p in policy.model.parameters()]
    assert outline.positions is None and policy.positions is None
    contexts, ids = batch(2, 24, 3, groups=2, length=4)
    held = T5.footprint(policy.model.config, Lengths(context=72, row=24, response=4, group=8))
    assert kept_bytes(policy, contexts, ids) <= 4 * (held.kept * 2 * (72 + 8) + held.once)


def test_passages_of_byt5_are_cut_between_characters(tmp_path):
    policy = t5_policy("byt5", tmp_path, max_passage_tokens=7)
    renderer = policy._renderer
    assert renderer._beginnings(["日本語", "abc", "été en", ""], 7) == ["日本", "abc", "été e", ""]
    assert renderer._without_beginning("日本語", 3) == "本語" and renderer._without_beginning("日本語", 4) == "語"


def test_a_byt5_says_everything_and_an_mt5_what_its_pieces_hold(tmp_path):
    answers = ["the {red} boat", "日本語", TEXTS[0], "ａnna"]
    assert t5_policy("byt5", tmp_path / "b").unsayable(answers) == [False] * 4
    assert t5_policy("mt5", tmp_path / "m").unsayable(answers) == [True, True, False, False]


@pytest.mark.parametrize(("lacking", "named"), [(["sentencepiece"], "sentencepiece"), (["google.protobuf"], "protobuf")])
def test_a_missing_package_is_named(lacking, named, tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "_is_installed", lambda module: module not in [*lacking, "tiktoken"])
    error = ValueError("`tiktoken` is required to read a `tiktoken` file. Install it with `pip install tiktoken`.")
    message = str(model_files.unreadable(tmp_path, "its tokenizer cannot be loaded", error))
    assert message == f"policy {tmp_path}: needs the package {named}, which is not installed; pip install {named}"


def test_a_sentencepiece_file_that_is_none_is_refused_in_one_line(tmp_path):
    save_mt5(tmp_path)
    (tmp_path / "spiece.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(PolicyError, match=f"policy {tmp_path}: ") as refusal:
        load_policy(tmp_path, SETTINGS, torch.float32, "cpu")
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_is_larger_than_the_embedding_is_refused(tmp_path):
    policy = t5_policy("mt5", tmp_path / "small")
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.add_tokens([f"<own_{i}>" for i in range(60)])
    tokenizer.save_pretrained(tmp_path / "small")
    for loads in (
        lambda: load_policy(tmp_path / "small", SETTINGS, torch.float32, "cpu"),
        lambda: skeleton(tmp_path / "small", SETTINGS),
    ):
        with pytest.raises(PolicyError, match=f"its tokenizer has {len(tokenizer)} tokens, its embedding 200 rows; give"):
            loads()
