"""Steps of TRL's GRPOTrainer, timed; `benchmarks.causal` runs this file with an interpreter that has trl.

stdin: JSON {folder, prompts, prompts_a_step, group, new_tokens, kl_coef, lr, threads}.
The last line on stdout: seconds of every step.
"""

import json
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: object, state: object, control: object, **kwargs: object) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def main() -> None:
    work = json.load(sys.stdin)
    torch.set_num_threads(work["threads"])
    with tempfile.TemporaryDirectory() as output:
        config = GRPOConfig(
            output_dir=output,
            use_cpu=True,
            bf16=False,
            max_steps=len(work["prompts"]) // work["prompts_a_step"],
            per_device_train_batch_size=work["prompts_a_step"] * work["group"],
            num_generations=work["group"],
            max_completion_length=work["new_tokens"],
            beta=work["kl_coef"],
            learning_rate=work["lr"],
            gradient_checkpointing=False,
            shuffle_dataset=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        clock = Clock()
        trainer = GRPOTrainer(
            AutoModelForCausalLM.from_pretrained(work["folder"], dtype=torch.float32),
            reward_funcs=lambda completions, **_: [float(len(set(text.split()))) for text in completions],
            args=config,
            train_dataset=Dataset.from_dict({"prompt": work["prompts"]}),
            processing_class=AutoTokenizer.from_pretrained(work["folder"]),
            callbacks=[clock],
        )
        trainer.train()
    print(json.dumps(clock.seconds))


if __name__ == "__main__":
    main()
