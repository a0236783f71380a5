"""Record what TRL itself makes of fixed log-probs and rewards: an independent check of our losses and advantages.

    pip install "trl==1.16.*" torch    # in a virtual environment of its own, a CPU is enough
    python tests/learner/trl/record.py tests/learner/trl/agreement.json

TRL's trainers run whole, from the rewards to the loss; only the model's log-probs, its entropies and the sampled tokens are
replaced. In the file: P prompts, G responses each, N = P * G responses in the order of the prompts, T tokens, F rewards.
Settings are TRL's own, `common` those of every case. `old_logprobs` are those before the update, `sampler_logprobs` those of
the engine that sampled (vLLM), which only the cases with `use_vllm` use. Where `mask` is False, other numbers stand on purpose;
`mask_truncated_completions` masks the responses in `truncated` too. A loss takes the `advantages` of the inputs, or its own.
"""

import json
import os
import sys
import tempfile

os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

PROMPTS, EOS, WORD = ["a", "b", "c"], 1, 2
P, G, T = len(PROMPTS), 4, 7
LENGTHS = [3, 7, 1, 5, 7, 2, 6, 4, 7, 5, 3, 2]
TRUNCATED = [False, True, False, False, True, False, False, False, False, False, False, False]

COMMON = {
    "per_device_train_batch_size": P * G,
    "num_generations": G,
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "num_iterations": 2,
    "max_completion_length": 10,
    "epsilon": 0.2,
    "epsilon_high": 0.28,
    "beta": 0.0,
}

# Rewards of each set, [F, P, G]: numbers that float32 holds exactly, None where a function has no answer.
REWARDS = {
    "one": [[[0.5, 1.0, 0.0, 0.25], [1.0, 0.125, 0.75, 0.0], [0.25, 0.5, 1.0, 0.875]]],
    "three": [
        [[0.5, 1.0, 0.0, 0.25], [1.0, 0.125, 0.75, 0.0], [0.25, 0.5, 1.0, 0.875]],
        [[2.0, -1.0, 3.5, 0.0], [0.5, 4.0, -2.5, 1.0], [3.0, 3.0, -1.5, 0.25]],
        [[1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]],
    ],
    "flat": [[[0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.5]]],
    "missing": [
        [[0.5, None, 0.0, 0.25], [1.0, 0.125, None, 0.0], [None, None, 1.0, None]],
        [[2.0, None, None, 0.0], [None, None, None, None], [3.0, 3.0, -1.5, 0.25]],
    ],
    "lone": [[[0.5, None, 0.0, 0.25], [None, None, 0.75, None], [None, None, None, None]]],
}
WEIGHTS = {"three": [1.0, 0.5, 2.0], "missing": [2.0, 0.5]}

GSPO = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.1, "epsilon_high": 0.15}
LOSSES = {
    "grpo": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.3},
    "gspo": GSPO,
}
KL = {"beta": 0.25, "use_bias_correction_kl": False}
WEIGHTED_KL = {"beta": 0.25, "use_bias_correction_kl": True}
MODES = ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


def correction(mode: str, low: float | None = None) -> dict:
    bounds = {"vllm_importance_sampling_clip_max": 1.25, "vllm_importance_sampling_clip_min": low}
    return {"use_vllm": True, "vllm_importance_sampling_mode": mode} | bounds


def loss_cases() -> dict[str, dict]:
    cases = {}
    for name, loss in LOSSES.items():
        cases[name] = loss
        cases[f"{name}_kl"] = loss | KL
        cases[f"{name}_kl_weighted"] = loss | WEIGHTED_KL
        cases[f"{name}_mask_truncated"] = loss | KL | {"mask_truncated_completions": True}
    for name in ["grpo", "dapo", "cispo", "gspo"]:
        cases |= {f"{name}_{mode}": LOSSES[name] | KL | correction(mode) for mode in MODES}
        cases[f"{name}_on_policy"] = LOSSES[name] | WEIGHTED_KL | {"num_iterations": 1}
    cases |= {f"dapo_{mode}_bounded": LOSSES["dapo"] | correction(mode, 0.8) for mode in MODES}
    cases |= {f"{name}_delta": LOSSES[name] | {"delta": 1.4} for name in ["grpo", "dapo", "gspo"]}
    cases["grpo_symmetric"] = LOSSES["grpo"] | {"epsilon": 0.2, "epsilon_high": None}
    cases["gspo_dapo"] = GSPO | {"loss_type": "dapo"}
    cases["dapo_truncate_and_mask"] = LOSSES["dapo"] | correction("sequence_truncate") | {"mask_truncated_completions": True}
    cases |= {f"{name}_entropy": LOSSES[name] | {"entropy_coef": 0.25} for name in ["grpo", "dapo", "dr_grpo"]}
    cases["grpo_entropy_top"] = LOSSES["grpo"] | {"entropy_coef": 0.25, "top_entropy_quantile": 0.5}
    cases |= {"rloo": {}, "rloo_kl": {"beta": 0.25}, "rloo_mask_truncated": {"beta": 0.25, "mask_truncated_completions": True}}
    return cases


def advantage_cases() -> dict[str, tuple[str, dict]]:
    """Name -> set of rewards and settings."""
    cases = {}
    for rewards in REWARDS:
        weights = {"reward_weights": WEIGHTS[rewards]} if rewards in WEIGHTS else {}
        for scale in ["group", "batch", "none"]:
            cases[f"{rewards}_{scale}"] = rewards, weights | {"scale_rewards": scale}
        cases[f"{rewards}_gdpo"] = rewards, weights | {"multi_objective_aggregation": "normalize_then_sum"}
        cases[f"rloo_{rewards}"] = rewards, weights
    cases["rloo_one_normalized"] = "one", {"normalize_advantages": True}
    cases["rloo_one_clipped"] = "one", {"reward_clip_range": [0.25, 0.75]}
    cases["rloo_one_kl"] = "one", {"beta": 0.25}
    cases["rloo_one_kl_clipped_normalized"] = "one", cases["rloo_one_clipped"][1] | {"beta": 0.25, "normalize_advantages": True}
    return cases


def make_inputs() -> dict[str, torch.Tensor]:
    """Log-probs and entropies [N, T] of six decimals, far enough apart for ratios to be clipped on both sides."""
    rng = torch.Generator().manual_seed(0)

    def near(logprobs: torch.Tensor, distance: float) -> torch.Tensor:
        return logprobs + distance * torch.randn(P * G, T, generator=rng)

    old = -3 * torch.rand(P * G, T, generator=rng) - 1
    policy = near(old, 0.35)
    logprobs = {"policy": policy, "old": old, "sampler": near(old, 0.2), "reference": near(policy, 0.4)}
    tensors = {f"{name}_logprobs": value for name, value in logprobs.items()}
    return {name: x.round(decimals=6) for name, x in (tensors | {"entropies": 3 * torch.rand(P * G, T, generator=rng)}).items()}


class Fixed:
    """Answers from `fixed` where TRL would run a model: the policy in the loss, before it the old one and the reference."""

    fixed: dict[str, torch.Tensor]
    completion_ids = [[WORD] * (n - 1) + [WORD if cut else EOS] for n, cut in zip(LENGTHS, TRUNCATED, strict=True)]

    def _get_per_token_logps_and_entropies(self, model, *arguments, compute_entropy=False, **options):
        if compute_entropy:
            return self.fixed["policy_logprobs"], self.fixed["entropies"], None
        return self.fixed["reference_logprobs" if model is self.ref_model else "old_logprobs"], None, None


class FixedGRPO(Fixed, trl.GRPOTrainer):
    def _generate_single_turn(self, *arguments, **options):
        logprobs = [row[:n].tolist() for row, n in zip(self.fixed["sampler_logprobs"], LENGTHS, strict=True)]
        return self.completion_ids, logprobs


class FixedRLOO(Fixed, trl.RLOOTrainer):
    def _generate_single_turn(self, *arguments, **options):
        return self.completion_ids


def reward_function(name: str, rewards: list[list[float | None]]):
    def function(**columns):
        return [reward for group in rewards for reward in group]

    function.__name__ = name
    return function


def make_trainer(folder: str, kind: str, rewards: str, settings: dict, inputs: dict[str, torch.Tensor]) -> Fixed:
    """A trainer of a tiny model that never runs. `use_vllm` is set afterwards: all that it changes here is the correction."""
    trainer, config = (FixedRLOO, trl.RLOOConfig) if kind == "rloo" else (FixedGRPO, trl.GRPOConfig)
    quiet = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True}
    chosen = {name: value for name, value in (COMMON | settings).items() if name != "use_vllm"}
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": EOS, "a": WORD, "b": 3, "c": 4}, unk_token="<pad>"))
    words.pre_tokenizer = Whitespace()
    result = trainer(
        model=folder,
        reward_funcs=[reward_function(f"reward_{n}", values) for n, values in enumerate(REWARDS[rewards])],
        args=config(output_dir=folder, **quiet, **chosen),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"),
    )
    result.fixed = {name: x.clone().requires_grad_(name in ("policy_logprobs", "entropies")) for name, x in inputs.items()}
    result.current_gradient_accumulation_steps = COMMON["gradient_accumulation_steps"]
    result.use_vllm = settings.get("use_vllm", False)
    result.model.train()
    assert result.accelerator.num_processes == 1
    return result


def numbers(value):
    """Tensors as nested lists of twelve digits, NaN as None."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [numbers(x) for x in value]
    if isinstance(value, float):
        return None if value != value else float(f"{value:.12g}") + 0.0
    return value


def metrics(trainer: Fixed, of_rewards: bool) -> dict[str, float | None]:
    logged = {name: values[-1] for name, values in sorted(trainer._metrics["train"].items())}
    kept = {name: x for name, x in logged.items() if not name.startswith(("completions/", "num_tokens", "profiling/"))}
    rewards = {name: x for name, x in kept.items() if name.startswith(("reward", "frac_reward"))}
    return {name: numbers(x) for name, x in kept.items() if of_rewards or name not in rewards}


def score(trainer: Fixed) -> dict[str, torch.Tensor]:
    return trainer._generate_and_score_completions([{"prompt": prompt} for prompt in PROMPTS for _ in range(G)])


def loss_case(folder: str, name: str, settings: dict, inputs: dict[str, torch.Tensor]) -> tuple[dict, dict]:
    """The record of a case, and what TRL gave its loss."""
    trainer = make_trainer(folder, name.split("_")[0], "one", settings, inputs)
    batch = score(trainer)
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    record = {"settings": settings, "loss": numbers(loss.item()), "gradient": numbers(trainer.fixed["policy_logprobs"].grad)}
    if settings.get("entropy_coef"):
        record["entropy_gradient"] = numbers(trainer.fixed["entropies"].grad)
    if settings.get("use_vllm"):
        record["importance_sampling_ratio"] = numbers(batch["importance_sampling_ratio"])
    if name.startswith("rloo"):
        record["advantages"] = numbers(batch["advantages"])
    return record | {"metrics": metrics(trainer, of_rewards=False)}, batch


def advantage_case(folder: str, name: str, rewards: str, settings: dict, inputs: dict[str, torch.Tensor]) -> dict:
    trainer = make_trainer(folder, name.split("_")[0], rewards, settings, inputs)
    advantages = numbers(score(trainer)["advantages"].view(P, G))
    logged = metrics(trainer, of_rewards=True)
    return {"settings": settings, "rewards_per_function": REWARDS[rewards], "advantages": advantages, "metrics": logged}


def record() -> dict:
    inputs = make_inputs()
    losses, advantages = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=32, n_embd=4, n_layer=1, n_head=1)).save_pretrained(folder)
        for name, settings in loss_cases().items():
            losses[name], batch = loss_case(folder, name, settings, inputs)
            if name == "grpo":
                mask = batch["completion_mask"].bool()
                given = {"mask": mask, "advantages": batch["advantages"], "num_items_in_batch": batch["num_items_in_batch"]}
        for name, (rewards, settings) in advantage_cases().items():
            advantages[name] = advantage_case(folder, name, rewards, settings, inputs)
    sizes = {"lengths": LENGTHS, "truncated": TRUNCATED, "num_processes": 1}
    recorded = {name: numbers(value) for name, value in (sizes | inputs | given).items()}
    versions = {"trl": trl.__version__, "torch": torch.__version__.split("+")[0]}
    return versions | {"common": COMMON, "inputs": recorded, "losses": losses, "advantages": advantages}


def lines(value: dict, depth: int = 2) -> str:
    """JSON with one line per entry of the first two levels."""
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    inner = ",\n".join(f"{json.dumps(name)}: {lines(entry, depth - 1)}" for name, entry in value.items())
    return "{\n" + inner + "\n}"


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)  # TRL follows, so that its figures are exact to twelve digits
    torch.set_num_threads(1)
    text = lines(record()) + "\n"
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write(text)
