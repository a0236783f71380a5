"""The group-shared computation of causal LMs against transformers' own, response by response."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, DeepseekV3Config, Gemma2Config, LlamaConfig, MistralConfig

from rollout.errors import PolicyError, SettingsError
from rollout.policy.decoding import Decoding
from rollout.policy.loading import load_policy, skeleton
from rollout.policy.tree_attention import Branches
from tests.rollout.tiny import PROMPTS, chosen, contexts_of, padded, sampled
from tests.rollout.tiny_causal import END, SETTINGS, causal_policy, save_causal, tokenizer

TOLERANCE = 1e-5
ENDS = {"pad_token_id": 0, "bos_token_id": END, "eos_token_id": END}
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = ["llama", "qwen2", "qwen3", "gpt2"]


@pytest.fixture(scope="module", params=FAMILIES)
def policy(request, tmp_path_factory):
    return causal_policy(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def plain(policy):
    """The same weights under transformers' own attention."""
    model = copy.deepcopy(policy.model)
    model.set_attn_implementation("sdpa")
    return model


@pytest.fixture(scope="module")
def groups(policy):
    return sampled(policy, group_size=5, max_new_tokens=8)


def plain_logprobs(model, context, token_ids, temperature):
    """Log-probs [T, V] before each token of one response, which carries its own copy of the prompt."""
    sequence = torch.from_numpy(np.concatenate([context[0], token_ids]).astype(np.int64))[None]
    logits = model(input_ids=sequence, use_cache=False).logits[0, len(context[0]) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1)


def test_prompts_and_responses_are_ragged(policy, groups):
    assert len({len(row) for (row,) in contexts_of(policy)}) == 4
    responses = [r for group in groups for r in group]
    assert {r.finished for r in responses} == {True, False} and len({len(r.token_ids) for r in responses}) > 2


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_equal_transformers_forward(policy, plain, groups, temperature):
    contexts = contexts_of(policy)
    ids, mask = padded(groups)
    with torch.no_grad():
        scores = policy.token_logprobs(contexts, ids, temperature)
        for p, group in enumerate(groups):
            for g, response in enumerate(group):
                full = plain_logprobs(plain, contexts[p], response.token_ids, temperature)
                real = mask[p, g]
                expected = chosen(full, response.token_ids)
                torch.testing.assert_close(scores.logprobs[p, g][real], expected, rtol=TOLERANCE, atol=TOLERANCE)
                entropy = -(full.exp() * full).sum(-1)
                torch.testing.assert_close(scores.entropy[p, g][real], entropy, rtol=TOLERANCE, atol=TOLERANCE)


def test_gradients_equal_those_of_the_repeated_forward(policy, plain, groups):
    contexts = contexts_of(policy)
    ids, mask = padded(groups)
    weights = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    (policy.token_logprobs(contexts, ids, 1.0).logprobs * weights).sum().backward()
    for p, group in enumerate(groups):
        for g, response in enumerate(group):
            logprobs = chosen(plain_logprobs(plain, contexts[p], response.token_ids, 1.0), response.token_ids)
            (logprobs * weights[p, g][mask[p, g]]).sum().backward()
    for (name, ours), theirs in zip(policy.model.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= TOLERANCE * theirs.grad.abs().max(), name
    policy.model.zero_grad()
    plain.zero_grad()


def test_greedy_equals_generate(policy, plain):
    samples = policy.sample(contexts_of(policy), 1, Decoding(8))
    assert samples.top_p_mass == 1
    for context, [response] in zip(contexts_of(policy), samples.responses, strict=True):
        ids = torch.from_numpy(context[0].astype(np.int64))[None]
        generated = plain.generate(ids, do_sample=False, max_new_tokens=8, pad_token_id=0)[0, ids.shape[1] :]
        assert response.token_ids.tolist() == generated.tolist()


@pytest.mark.parametrize("temperature", [1.0, 1.5])
@pytest.mark.parametrize("group_size", [2, 8])  # few rows take another way through the linear layers
def test_sampled_logprobs_equal_scores_under_equal_weights(policy, group_size, temperature):
    groups = sampled(policy, group_size=group_size, max_new_tokens=10, temperature=temperature)
    ids, mask = padded(groups)
    with torch.no_grad():
        scored = policy.token_logprobs(contexts_of(policy), ids, temperature).logprobs[mask]
    recorded = torch.from_numpy(np.concatenate([r.sampler_logprobs for group in groups for r in group]))
    torch.testing.assert_close((scored - recorded).exp(), torch.ones_like(scored), rtol=0, atol=TOLERANCE)


def test_sampled_frequencies_follow_the_models_distribution(policy, plain):
    contexts = contexts_of(policy)[:1]
    uniforms = np.random.default_rng(0).random((1000, 1))
    [group] = policy.sample(contexts, 1000, Decoding(1, uniforms=uniforms)).responses
    with torch.no_grad():
        expected = plain_logprobs(plain, contexts[0], np.array([0]), 1.0)[0].exp().double().numpy() * 1000
    observed = np.bincount([int(r.token_ids[0]) for r in group], minlength=len(expected))
    common = expected >= 5
    rest = max(1e-9, expected[~common].sum())
    statistic = (np.square(observed - expected)[common] / expected[common]).sum()
    statistic += (observed[~common].sum() - rest) ** 2 / max(rest, 1.0)
    degrees = int(common.sum())
    assert statistic < degrees + 4 * np.sqrt(2 * degrees) + 4


def test_a_longer_neighbour_changes_no_score(policy, groups):
    contexts = contexts_of(policy)
    ids, mask = padded(groups)
    long = (np.concatenate([contexts[0][0]] * 3),)
    with torch.no_grad():
        alone = policy.token_logprobs(contexts[1:3], ids[1:3], 1.0).logprobs
        beside = policy.token_logprobs([*contexts[1:3], long], torch.cat([ids[1:3], ids[:1]]), 1.0).logprobs[:2]
    torch.testing.assert_close(beside[mask[1:3]], alone[mask[1:3]], rtol=TOLERANCE, atol=TOLERANCE)


def test_a_prompt_of_one_token_and_a_response_of_one_token_are_scored_and_sampled(policy, plain):
    contexts = [(np.array([7], np.int32),), (np.array([8, 9, 10], np.int32),)]
    for of_all in (contexts, contexts[:1]):
        groups = policy.sample(of_all, 2, Decoding(1)).responses
        ids, _ = padded(groups)
        with torch.no_grad():
            scored = policy.token_logprobs(of_all, ids, 1.0).logprobs
            first = [group[0].token_ids for group in groups]
            expected = [chosen(plain_logprobs(plain, c, ids, 1.0), ids) for c, ids in zip(of_all, first, strict=True)]
        torch.testing.assert_close(scored[:, 0], torch.stack(expected), rtol=TOLERANCE, atol=TOLERANCE)


def test_passages_come_before_the_question_and_the_template_wraps_both(tmp_path):
    policy = causal_policy(tmp_path, system_prompt="well yes")
    text = policy.tokenizer.decode(contexts_of(policy)[3][0])
    question = PROMPTS[3].question
    bread = "i love to bake bread ."
    expected = f"<system> well yes <end> <user> trip my cousin anna went to the beach . {bread} {question} <end> <assistant>"
    assert text == expected


def test_without_a_chat_template_the_prompt_is_plain_text(tmp_path):
    policy = causal_policy(tmp_path, chat=False)
    assert policy.tokenizer.decode(contexts_of(policy)[2][0]) == "yes ? R:"
    assert policy.target("the beach .").tolist() == [*policy.tokenizer("the beach .")["input_ids"], END]


def test_only_passages_are_cut(tmp_path):
    policy = causal_policy(tmp_path, max_passage_tokens=2, chat=False)
    text = policy.tokenizer.decode(contexts_of(policy)[0][0])
    assert text == "trip my cousin pet my boss i love where did your cousin go ? R:"


def test_a_system_prompt_needs_a_chat_template(tmp_path):
    with pytest.raises(SettingsError, match="policy.system_prompt: has no effect"):
        causal_policy(tmp_path, chat=False, system_prompt="be brief")


def test_a_chat_template_that_knows_no_system_role_refuses_a_system_prompt(tmp_path):
    folder = save_causal(tmp_path)
    template = folder / "chat_template.jinja"
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    with pytest.raises(SettingsError, match="refuses it .no system role."):
        load_policy(folder, SETTINGS.model_copy(update={"system_prompt": "be brief"}), torch.float32, "cpu")


def test_a_passage_template_with_the_query_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="policy.passage_template: has {query}"):
        causal_policy(tmp_path, passage_template="{query} {text}")


def test_more_tokens_than_positions_are_refused(tmp_path):
    policy = causal_policy(tmp_path, "gpt2")
    context = [(np.full(125, 5, np.int32),)]
    with pytest.raises(PolicyError, match="a prompt of 125 and a response of 8 tokens exceed 128 positions"):
        policy.sample(context, 1, Decoding(8))


def saved(folder, config):
    words = tokenizer(chat=False)
    config.vocab_size = len(words)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_model_whose_attention_is_of_another_kind_is_refused(tmp_path):
    bloom = BloomConfig(hidden_size=32, n_layer=2, n_head=4, **ENDS)
    gemma = Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=8, **ENDS)
    for name, config in {"bloom": bloom, "gemma": gemma}.items():
        with pytest.raises(PolicyError, match="give another model"):
            load_policy(saved(tmp_path / name, config), SETTINGS, torch.float32, "cpu")


def test_a_sliding_window_is_refused_before_the_first_token_that_could_leave_it(tmp_path):
    folder = saved(tmp_path, MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=48, **ENDS))
    policy = load_policy(folder, SETTINGS, torch.float32, "cpu")
    groups = sampled(policy, group_size=3, max_new_tokens=8)
    with torch.no_grad():
        scored = policy.token_logprobs(contexts_of(policy), padded(groups)[0], 1.0).logprobs
    recorded = np.concatenate([r.sampler_logprobs for group in groups for r in group])
    torch.testing.assert_close(scored[padded(groups)[1]], torch.from_numpy(recorded), rtol=1e-4, atol=1e-4)
    for length in (60, 42):  # 41 and 8 stay within the 48 that a token sees: the last of the 8 is not read
        with pytest.raises(PolicyError, match="tokens exceed .* window of 48"):
            policy.sample([(np.full(length, 5, np.int32),)], 2, Decoding(8))
    policy.sample([(np.full(41, 5, np.int32),)], 2, Decoding(8))
    assert policy.positions == skeleton(tmp_path, SETTINGS).positions == 41 + 8


@pytest.mark.parametrize(
    "limit",
    [
        {
            "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 40, "rope_theta": 1e4}
            | {name: [1.0] * 4 for name in ("short_factor", "long_factor")}
        },
        {"max_position_embeddings": 40},
    ],
    ids=["longrope", "positions"],
)
def test_rotations_that_depend_on_the_longest_neighbour_are_refused(limit, tmp_path):
    policy = load_policy(saved(tmp_path, LlamaConfig(**SHAPE, **limit, **ENDS)), SETTINGS, torch.float32, "cpu")
    policy.sample([(np.full(32, 5, np.int32),)], 2, Decoding(8))
    with pytest.raises(PolicyError, match="a prompt of 33 and a response of 8 tokens exceed 40 positions"):
        policy.sample([(np.full(33, 5, np.int32),)], 2, Decoding(8))


def test_values_may_be_narrower_than_keys(tmp_path):
    shape = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 6}
    experts = {"n_routed_experts": 2, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
    config = DeepseekV3Config(**SHAPE, **shape, **experts, num_key_value_heads=4, first_k_dense_replace=2, **ENDS)
    policy = load_policy(saved(tmp_path, config), SETTINGS, torch.float32, "cpu")
    groups = sampled(policy, group_size=3, max_new_tokens=6)
    ids, mask = padded(groups)
    with torch.no_grad():
        scored = policy.token_logprobs(contexts_of(policy), ids, 1.0).logprobs[mask]
    recorded = np.concatenate([r.sampler_logprobs for group in groups for r in group])
    torch.testing.assert_close(scored, torch.from_numpy(recorded), rtol=1e-4, atol=1e-4)


def test_a_model_whose_decoding_differs_from_its_forward_is_refused(tmp_path, monkeypatch):
    folder = save_causal(tmp_path)
    whole = Branches.attend
    monkeypatch.setattr(Branches, "attend", lambda *args: whole(*args) * 1.1)
    with pytest.raises(PolicyError, match="computes a shared prompt differently"):
        load_policy(folder, SETTINGS, torch.float32, "cpu")
    monkeypatch.setattr(Branches, "attend", lambda *args: whole(*args) * float("nan"))
    with pytest.raises(PolicyError, match="computes a shared prompt differently"):
        load_policy(folder, SETTINGS, torch.float32, "cpu")


def test_bfloat16_sampler_and_scores_agree_within_its_precision(tmp_path):
    policy = load_policy(save_causal(tmp_path), SETTINGS, torch.bfloat16, "cpu")
    groups = sampled(policy, group_size=3, max_new_tokens=8)
    ids, mask = padded(groups)
    with torch.no_grad():
        scored = policy.token_logprobs(contexts_of(policy), ids, 1.0).logprobs[mask]
    recorded = torch.from_numpy(np.concatenate([r.sampler_logprobs for group in groups for r in group]))
    assert (scored - recorded).abs().median() < 0.1


def test_a_prompt_without_a_token_is_refused(tmp_path):
    policy = causal_policy(tmp_path, chat=False, prompt_template="{question}")
    with pytest.raises(PolicyError, match="policy.prompt_template: leaves a prompt without a token"):
        policy.contexts([""], [()])


def test_what_pads_a_response_changes_no_score(policy, groups):
    ids, mask = padded(groups)
    with torch.no_grad():
        zeros, others = (
            policy.token_logprobs(contexts_of(policy), ids.masked_fill(~mask, fill), 1.0).logprobs for fill in (0, 9)
        )
    assert torch.equal(zeros[mask], others[mask])


def test_end_tokens_may_be_lists_and_the_tokenizers_comes_first(tmp_path):
    config = LlamaConfig(**SHAPE, pad_token_id=0, bos_token_id=3, eos_token_id=[5, END])
    policy = load_policy(saved(tmp_path, config), SETTINGS, torch.float32, "cpu")
    assert policy.end_tokens == [END, 5]
    assert policy.target("the beach .")[-1] == END


def test_a_saved_policy_is_a_plain_transformers_folder(tmp_path):
    policy = causal_policy(tmp_path / "first")
    policy.save(tmp_path / "saved")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert model.config._attn_implementation != "tree"
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), policy.model.parameters(), strict=True))
    assert "tree" not in (tmp_path / "saved" / "config.json").read_text()


def test_a_folder_without_an_end_token_is_refused(tmp_path):
    save_causal(tmp_path, "qwen2", chat=False)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        told = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps({key: None if key.startswith("eos_") else told[key] for key in told}))
    with pytest.raises(PolicyError, match="end token"):
        load_policy(tmp_path, SETTINGS, torch.float32, "cpu")
