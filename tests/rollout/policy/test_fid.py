"""The group-shared computation against transformers' own, response by response."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput

from rollout.config import PolicySettings
from rollout.policy.decoding import Decoding
from rollout.policy.fid import FidPolicy
from rollout.policy.loading import load_policy
from rollout.policy.rendering import FidRenderer
from rollout.types import Passage
from tests.rollout.tiny import END, PROMPTS, SETTINGS, chosen, contexts_of, padded, sampled, tiny_policy, with_own_head

TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=["tied", "own head"])
def policy(request, tmp_path_factory):
    if request.param == "tied":
        return tiny_policy()
    return load_policy(with_own_head(tmp_path_factory.mktemp("flan")), SETTINGS, torch.float32, "cpu")


@pytest.fixture(scope="module")
def contexts(policy):
    return contexts_of(policy)


@pytest.fixture(scope="module")
def groups(policy):
    return sampled(policy)


def states_of(model, context):
    """All rows of a prompt encoded one by one, without padding, and laid end to end: [1, S, d_model]."""
    rows = [torch.from_numpy(row.astype(np.int64))[None] for row in context]
    return torch.cat([model.encoder(input_ids=row).last_hidden_state for row in rows], 1)


def plain_logprobs(model, states, token_ids, temperature):
    """Log-probs [T, V] before each token of one response, by transformers' forward."""
    ids = torch.from_numpy(token_ids.astype(np.int64))
    inputs = torch.cat([torch.tensor([model.config.decoder_start_token_id]), ids[:-1]])[None]
    logits = model(encoder_outputs=BaseModelOutput(last_hidden_state=states), decoder_input_ids=inputs).logits[0]
    return torch.log_softmax(logits / temperature, -1)


def test_contexts_are_ragged(contexts):
    assert [len(context) for context in contexts] == [3, 1, 1, 2]
    assert len({len(row) for context in contexts for row in context}) >= 5


def test_responses_are_ragged(groups):
    responses = [r for group in groups for r in group]
    assert {r.finished for r in responses} == {True, False} and len({len(r.token_ids) for r in responses}) > 2
    assert all(len(r.token_ids) == len(r.sampler_logprobs) for r in responses)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_equal_transformers_forward(policy, contexts, groups, temperature):
    ids, mask = padded(groups)
    with torch.no_grad():
        scores = policy.token_logprobs(contexts, ids, temperature)
        for p, group in enumerate(groups):
            states = states_of(policy.model, contexts[p])
            for g, response in enumerate(group):
                full = plain_logprobs(policy.model, states, response.token_ids, temperature)
                real = mask[p, g]
                torch.testing.assert_close(
                    scores.logprobs[p, g][real], chosen(full, response.token_ids), rtol=TOLERANCE, atol=TOLERANCE
                )
                entropy = -(full.exp() * full).sum(-1)
                torch.testing.assert_close(scores.entropy[p, g][real], entropy, rtol=TOLERANCE, atol=TOLERANCE)


def test_gradients_equal_those_of_the_repeated_forward(policy, contexts, groups):
    ids, mask = padded(groups)
    weights = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    named = dict(policy.model.named_parameters())
    (policy.token_logprobs(contexts, ids, 1.0).logprobs * weights).sum().backward()
    shared = {name: p.grad.clone() for name, p in named.items()}
    policy.model.zero_grad()
    total = torch.zeros(())
    for p, group in enumerate(groups):
        for g, response in enumerate(group):  # the encoder runs anew for every response
            states = states_of(policy.model, contexts[p])
            logprobs = chosen(plain_logprobs(policy.model, states, response.token_ids, 1.0), response.token_ids)
            total = total + (logprobs * weights[p, g][mask[p, g]]).sum()
    total.backward()
    for name, parameter in named.items():
        largest = parameter.grad.abs().max()
        assert (shared[name] - parameter.grad).abs().max() <= TOLERANCE * largest, name
    policy.model.zero_grad()


def test_greedy_equals_generate(policy, contexts):
    samples = policy.sample(contexts, 1, Decoding(8))
    assert samples.top_p_mass == 1
    for context, [response] in zip(contexts, samples.responses, strict=True):
        states = BaseModelOutput(last_hidden_state=states_of(policy.model, context))
        generated = policy.model.generate(encoder_outputs=states, do_sample=False, max_new_tokens=8, num_beams=1)[0, 1:]
        assert response.token_ids.tolist() == generated.tolist()


@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_sampled_logprobs_equal_scores_under_equal_weights(policy, contexts, temperature):
    groups = sampled(policy, group_size=4, max_new_tokens=10, temperature=temperature)
    ids, mask = padded(groups)
    with torch.no_grad():
        scored = policy.token_logprobs(contexts, ids, temperature).logprobs[mask]
    recorded = torch.from_numpy(np.concatenate([r.sampler_logprobs for group in groups for r in group]))
    torch.testing.assert_close((scored - recorded).exp(), torch.ones_like(scored), rtol=0, atol=TOLERANCE)


def test_a_longer_neighbour_changes_no_score(policy, contexts, groups):
    ids, mask = padded(groups)
    long = tuple(np.concatenate([row[:-1]] * 3 + [row]) for row in contexts[0]) * 2
    with torch.no_grad():
        alone = policy.token_logprobs(contexts[1:3], ids[1:3], 1.0).logprobs
        beside = policy.token_logprobs([*contexts[1:3], long], torch.cat([ids[1:3], ids[:1]]), 1.0).logprobs[:2]
    torch.testing.assert_close(beside[mask[1:3]], alone[mask[1:3]], rtol=TOLERANCE, atol=TOLERANCE)


def test_what_pads_a_response_changes_no_score(policy, contexts, groups):
    ids, mask = padded(groups)
    with torch.no_grad():
        plain = policy.token_logprobs(contexts, ids, 1.0).logprobs[mask]
        other = policy.token_logprobs(contexts, ids.masked_fill(~mask, 7), 1.0).logprobs[mask]
    torch.testing.assert_close(other, plain, rtol=0, atol=0)


def test_an_own_head_survives_loading_saving_and_loading(tmp_path):
    source = with_own_head(tmp_path / "flan")
    policy = load_policy(source, SETTINGS, torch.float32, "cpu")
    assert policy.model.lm_head.weight is not policy.model.shared.weight
    policy.save(tmp_path / "saved")
    reloaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    inputs = {"input_ids": torch.tensor([[5, 6, 7, END]]), "decoder_input_ids": torch.tensor([[0, 8, 9]])}
    with torch.no_grad():
        assert torch.equal(reloaded(**inputs).logits, policy.model(**inputs).logits)
    assert not reloaded.config.scale_decoder_outputs


def test_a_saved_policy_is_a_plain_transformers_folder(tmp_path):
    policy = tiny_policy()
    policy.save(tmp_path)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = PROMPTS[0].question
    assert tokenizer(text)["input_ids"] == policy.tokenizer(text)["input_ids"]
    inputs = {**tokenizer(text, return_tensors="pt"), "decoder_input_ids": torch.tensor([[0, 8]])}
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, policy.model(**inputs).logits)


def test_finished_responses_hold_their_end_token_and_cut_ones_are_whole():
    policy = tiny_policy()
    responses = [r for group in sampled(policy, group_size=6) for r in group]
    finished, cut = [r for r in responses if r.finished], [r for r in responses if not r.finished]
    assert finished and cut
    for response in finished:
        assert response.token_ids[-1] == END and END not in response.token_ids[:-1]
    for response in cut:
        assert len(response.token_ids) == 6 and END not in response.token_ids
    for response in responses:
        assert response.token_ids.dtype == np.int32 and response.sampler_logprobs.dtype == np.float32
        assert response.text == policy.tokenizer.decode(response.token_ids, skip_special_tokens=True).strip()


def test_dropout_stays_off(tmp_path):
    policy = load_policy(with_own_head(tmp_path), SETTINGS, torch.float32, "cpu")  # its config asks for a rate of 0.1
    contexts, ids = contexts_of(policy), torch.full((len(PROMPTS), 1, 2), 5)
    assert torch.equal(policy.token_logprobs(contexts, ids, 1.0).logprobs, policy.token_logprobs(contexts, ids, 1.0).logprobs)


def test_a_target_ends_with_the_end_token_and_follows_its_template():
    policy = tiny_policy()
    spelled = FidPolicy(policy.model, policy.tokenizer, SETTINGS.model_copy(update={"response_template": "oh {answer}"}))
    assert policy.target("the beach .").tolist() == policy.tokenizer("the beach .")["input_ids"]
    assert spelled.target("the beach .").tolist() == policy.tokenizer("oh the beach .")["input_ids"]


def test_rows_follow_the_templates():
    policy = tiny_policy()
    rows = [policy.tokenizer.decode(row, skip_special_tokens=True) for row in contexts_of(policy)[3]]
    query = "persona: i bake . context: Q: where ? R:"
    assert rows == [f"{query} trip my cousin anna went to the beach .", f"{query} i love to bake bread ."]
    assert all(row[-1] == END for context in contexts_of(policy) for row in context)


def test_without_passages_the_query_is_the_only_row():
    policy = tiny_policy()
    [row] = contexts_of(policy)[2]
    assert policy.tokenizer.decode(row, skip_special_tokens=True) == "yes ? R:"


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_only_passage_text_is_cut_and_the_query_never(limit):
    tokenizer = tiny_policy().tokenizer
    settings = PolicySettings(
        max_passage_tokens=limit, prompt_template="{question} R:", passage_template="{text} {title} {query}"
    )
    question = "where did your cousin go ? " * 40
    passage = Passage(id="p", title="beach trip", text="my boss karl keeps a small grey parrot in the kitchen .")
    [[row]] = FidRenderer(tokenizer, settings).contexts([question.strip()], [[passage]])
    rendered = tokenizer.decode(row, skip_special_tokens=True)
    tail = f" beach trip {question.strip()} R:"
    assert rendered.endswith(tail)
    kept = rendered.removesuffix(tail)
    assert passage.text.startswith(kept)
    assert len(tokenizer(kept, add_special_tokens=False)["input_ids"]) == limit


def test_a_short_passage_is_not_cut():
    policy = tiny_policy()
    settings = SETTINGS.model_copy(update={"max_passage_tokens": 1000})
    [rows] = FidRenderer(policy.tokenizer, settings).contexts([PROMPTS[0].question], [PROMPTS[0].passages])
    for row, passage in zip(rows, PROMPTS[0].passages, strict=True):
        assert policy.tokenizer.decode(row, skip_special_tokens=True).endswith(passage.text)


def test_braces_in_the_data_are_plain_text():
    policy = tiny_policy()
    passage = Passage(id="p", title="{query}", text="{0} {text}")
    FidRenderer(policy.tokenizer, SETTINGS).contexts(["what is {x} ?"], [[passage]])
    policy.target("{answer} {}")
