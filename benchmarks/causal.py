"""A whole GRPO step of a small causal LM: sample, reward, reference, update, and the sampler gets the new weights.

    python -m benchmarks.causal [--peer [PYTHON]] [--steps 5] [--peer_steps 3] [--threads 2]

A Llama of 22 million random weights (8 layers, width 384, 6 heads, vocabulary 8192), 4 prompts x 8 responses, 546 prompt
tokens, 24 new tokens, KL to a reference, float32. `--peer` runs TRL's GRPOTrainer on the same model and prompts, in an
environment of its own: PYTHON is an interpreter that has trl; without it one is made below ~/.cache/lapdog-ray. The last line
is JSON; medians over steps, the first step left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from learner.config import LearnerSettings, Stage
from learner.learner import Learner
from reward.config import RewardSettings
from reward.scorer import Scorer
from rollout.config import PolicySettings, RolloutSettings
from rollout.policy.loading import load_policy
from rollout.retrieval.retriever import Retriever
from rollout.sampler import Sampler
from rollout.types import Prompt, Version

PROMPTS, GROUP, PROMPT_TOKENS, NEW_TOKENS, VOCABULARY = 4, 8, 546, 24, 8192
POLICY = PolicySettings(n_context=0, prompt_template="{question}", response_template="{answer}")
ROLLOUT = RolloutSettings(group_size=GROUP, prompts_per_step=PROMPTS, max_new_tokens=NEW_TOKENS)
KL_COEF, LR = 0.04, 1e-6
PEER = "trl==1.16.0"
PEER_STEP = Path(__file__).with_name("trl_step.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="?", const="", metavar="PYTHON")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peer_steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder)
        questions = random_questions(max(options.steps, options.peer_steps) + 1)
        seconds = our_steps(folder, questions[: options.steps + 1])
        print(f"{'':>11} {'sample':>8} {'reward':>8} {'update':>8} {'weights':>8} {'step':>8}   responses/s")
        medians = [statistics.median(column) for column in zip(*seconds[1:], strict=True)]
        ours = statistics.median(sum(parts) for parts in seconds[1:])
        columns = " ".join(f"{s:6.2f} s" for s in (*medians, ours))
        print(f"{'ours':>11} {columns}   {PROMPTS * GROUP / ours:.2f}", flush=True)
        theirs = None
        if options.peer is not None:
            python = options.peer or str(peer_python())
            theirs = statistics.median(peer_steps(python, folder, questions, options.peer_steps, options.threads)[1:])
            print(f"{PEER:>11} " + " " * 36 + f"{theirs:6.2f} s   {PROMPTS * GROUP / theirs:.2f}")
    speedup = None if theirs is None else round(theirs / ours, 2)
    result = {"bench": "causal", "ours_s": round(ours, 3), "trl_s": theirs and round(theirs, 3), "speedup": speedup}
    print(json.dumps(result))


def save_model(folder: Path) -> None:
    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3} | {f"w{i}": i for i in range(4, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=6,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def random_questions(steps: int) -> list[list[str]]:
    ids = np.random.default_rng(0).integers(4, VOCABULARY, (steps, PROMPTS, PROMPT_TOKENS))
    return [[" ".join(f"w{i}" for i in row) for row in of_step] for of_step in ids]


def our_steps(folder: Path, questions: list[list[str]]) -> list[tuple[float, ...]]:
    """Seconds of sampling, rewarding, updating (with the reference's forward) and handing over the weights in each step."""
    settings = LearnerSettings(kl_coef=KL_COEF)
    learner = Learner(load_policy(folder, POLICY, torch.float32, "cpu"), settings, ROLLOUT, POLICY, {"f1": 1.0})
    steps = len(questions)
    learner.begin(Stage(name="rl", mode="sample", first=1, steps=steps, prompts_per_step=PROMPTS, lr=LR, lr_warmup_steps=0))
    sampler = Sampler(load_policy(folder, POLICY, torch.float32, "cpu"), Retriever(0), ROLLOUT, seed=0)
    scorer = Scorer(RewardSettings())
    seconds = []
    for step, of_step in enumerate(questions, 1):
        prompts = [Prompt(id=str(i), question=text, answers=(text[-60:],), epoch=step) for i, text in enumerate(of_step)]
        marks = [time.perf_counter()]
        groups = sampler.sample(prompts, "sample", Version(0, step)).groups
        marks.append(time.perf_counter())
        scored = [scorer.score(group) for group in groups]
        marks.append(time.perf_counter())
        learner.update(scored, step)
        marks.append(time.perf_counter())
        sampler.load_weights(learner.weights(), Version(0, step + 1))
        marks.append(time.perf_counter())
        seconds.append(tuple(np.diff(marks).tolist()))
    return seconds


def peer_python() -> Path:
    """An interpreter that has TRL; its environment is made at the first call."""
    folder = Path.home() / ".cache" / "lapdog-ray" / PEER.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        torch_version = torch.__version__.split("+")[0]
        wanted = [PEER, f"torch=={torch_version}", f"transformers=={transformers.__version__}"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        (folder / "complete").touch()
    return python


def peer_steps(python: str, folder: Path, questions: list[list[str]], steps: int, threads: int) -> list[float]:
    prompts = [text for of_step in questions[: steps + 1] for text in of_step]
    work = {
        "folder": str(folder),
        "prompts": prompts,
        "prompts_a_step": PROMPTS,
        "group": GROUP,
        "new_tokens": NEW_TOKENS,
        "kl_coef": KL_COEF,
        "lr": LR,
        "threads": threads,
    }
    done = subprocess.run([python, PEER_STEP], input=json.dumps(work), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{python} {PEER_STEP}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
