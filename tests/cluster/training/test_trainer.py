"""Real runs on a real Ray, through the command line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from cluster.actors.errors import LearnerLost
from cluster.commands.train import train_request, training
from cluster.store.metrics import HELD_OUT, columns
from cluster.store.run_folder import read_settings
from cluster.watch.monitor import Stop
from cluster.watch.terminal import MEASURED_OTHERWISE
from launch import main
from rollout.data.dataset import PromptOrder, read_prompts
from tests.cluster.runs import assert_same_weights, copy_as_of, policy_weights, rows, without_clock

EVALUATION = ["examples", *(each.name for each in HELD_OUT if not each.of_vectors), "intervals", "constant_reply"]
SAMPLES = """id question answers passages passage_titles passage_ids retrieval_scores response reward f1 rougeL bleu advantage
tokens finished version""".split()

Train = Callable[..., Path]
UNEVALUATED = ("--data.valid", "null", "--eval_every", 0)
OF_RL = ("--supervised.steps", 0, *UNEVALUATED)


def test_a_run_writes_one_line_of_metrics_a_step_with_every_key(finished_run: Path) -> None:
    metrics = rows(finished_run / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 9))
    assert [row["stage"] for row in metrics] == ["supervised"] * 4 + ["rl"] * 4
    assert all(list(row) == [metric.name for metric in columns()] for row in metrics)
    assert all(row["staleness_max"] == 0 for row in metrics)


def test_the_ratio_is_one_while_sampler_and_learner_hold_equal_weights(finished_run: Path) -> None:
    for row in rows(finished_run / "metrics.jsonl")[4:]:
        assert row["ratio_max"] == pytest.approx(1, abs=1e-5) and row["clip_fraction"] == 0


def test_the_reference_is_the_policy_after_stage_1(finished_run: Path) -> None:
    assert rows(finished_run / "metrics.jsonl")[4]["kl"] == pytest.approx(0, abs=1e-6)
    reference = load_file(finished_run / "checkpoints" / "step-8" / "reference" / "model.safetensors")
    after_stage_1 = policy_weights(finished_run, "step-4")
    assert all(torch.equal(reference[name], after_stage_1[name]) for name in after_stage_1)


def test_evaluations_come_before_between_and_after_the_stages(finished_run: Path) -> None:
    evaluations = rows(finished_run / "evaluations.jsonl")
    assert [(row["step"], row["stage"]) for row in evaluations] == [
        (0, "start"),
        (3, "supervised"),
        (4, "supervised"),
        (6, "rl"),
        (8, "rl"),
    ]
    assert all(set(EVALUATION) <= set(row) and row["examples"] == 6 for row in evaluations)
    assert evaluations[0]["constant_reply"]["text"]


def test_every_response_of_a_grpo_step_is_in_the_sample_log(finished_run: Path) -> None:
    assert sorted(file.stem for file in (finished_run / "samples").iterdir()) == [f"step-{n}" for n in range(5, 9)]
    table = pq.read_table(finished_run / "samples" / "step-8.parquet")
    assert table.num_rows == 16 and set(SAMPLES) <= set(table.column_names)
    assert len(table["passages"][0]) == 2


def test_a_saved_policy_is_a_plain_transformers_folder(finished_run: Path) -> None:
    folder = finished_run / "checkpoints" / "latest" / "policy"
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "t5" and tokenizer("hello").input_ids[-1] == tokenizer.eos_token_id


def test_three_samplers_give_bitwise_what_one_gives(finished_run: Path, train: Train) -> None:
    other = train("--cluster.samplers", 3, "--cluster.rewards", 2)
    assert without_clock(other / "metrics.jsonl") == without_clock(finished_run / "metrics.jsonl")
    assert_same_weights(other, finished_run)


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_resumed_run_equals_one_that_was_never_interrupted(finished_run: Path, tmp_path: Path, step: int) -> None:
    """From within stage 1, where gold answers were fetched ahead; from between the stages; from within GRPO."""
    run = copy_as_of(finished_run, tmp_path / "run", step)
    pending = json.loads((run / "checkpoints" / "latest" / "state.json").read_text())["pending"]
    assert bool(pending) == (step == 2)
    assert main(["train", "--resume", str(run)]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(finished_run / "metrics.jsonl")
    assert [row["incarnation"] for row in rows(run / "metrics.jsonl")] == [0] * step + [1] * (8 - step)
    assert rows(run / "evaluations.jsonl") == rows(finished_run / "evaluations.jsonl")
    assert_same_weights(run, finished_run)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run", symlinks=True)
    weights = run / "checkpoints" / "step-8" / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert main(["train", "--resume", str(run)]) == 0
    said = "step-8: policy/model.safetensors is missing or damaged; trying the one before"
    assert said in capsys.readouterr().err
    assert without_clock(run / "metrics.jsonl") == without_clock(finished_run / "metrics.jsonl")
    assert_same_weights(run, finished_run)


EVERYTHING = {
    "sets dull groups aside": ("--rollout.dynamic_sampling", 2),
    "adapts and refreshes": ("--learner.kl_target", 1e-4, "--learner.reference_every", 2, "--learner.passes", 2),
    "REINFORCE": ("--learner.loss", "reinforce", "--learner.kl_coef", 0.1, "--learner.kl_in", "reward"),
}
OWN_REWARD = '[{function: "tests.cluster.own_reward:of_every_second_response"}]'


@pytest.mark.parametrize("flags", EVERYTHING.values(), ids=EVERYTHING)
def test_a_run_of_many_switches_is_resumed_bit_for_bit(flags: tuple[object, ...], train_locally: Train, tmp_path: Path) -> None:
    rewards = ("--reward.f1", 0, "--reward.rouge", 0, "--reward.bleu", 0, "--reward.extra", OWN_REWARD)
    whole = train_locally(*flags, *rewards, *OF_RL, "--keep_checkpoints", 9)
    run = copy_as_of(whole, tmp_path / "run", 2)
    state = json.loads((run / "checkpoints" / "latest" / "state.json").read_text())
    assert bool(state["filtered"]) == ("--rollout.dynamic_sampling" in flags)
    assert main(["train", "--local", "--resume", str(run)]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(whole / "metrics.jsonl")
    assert_same_weights(run, whole)


@pytest.mark.parametrize("flags", [(), ("--cluster.max_staleness", 2, "--cluster.samplers", 2, "--learner.correction", "mask")])
def test_no_prompt_is_lost_where_dull_groups_are_set_aside(flags: tuple[object, ...], train: Train, data_dir: Path) -> None:
    rewards = ("--reward.f1", 0, "--reward.rouge", 0, "--reward.bleu", 0, "--reward.extra", OWN_REWARD)
    run = train(*rewards, *flags, "--rollout.dynamic_sampling", 2, "--supervised.steps", 0, "--learner.steps", 11)
    metrics = rows(run / "metrics.jsonl")
    assert sum(row["filtered"] for row in metrics) > 0
    logs = [pq.read_table(file).to_pylist() for file in (run / "samples").glob("*.parquet")]
    trained = {(row["epoch"], row["id"]) for log in logs for row in log}
    assert len(trained) == 4 * len(metrics)
    state = json.loads((run / "checkpoints" / "latest" / "state.json").read_text())
    kept = {(epoch, id) for epoch, id, _ in state["pending"] + state["filtered"]} | {
        (epoch, id) for (epoch, id, _), *_ in state["ready"]
    }
    order = state["order"]
    assert order["epoch"] == 1  # the first is over: those set aside in it had their second attempt
    taken = PromptOrder(read_prompts(data_dir / "train.jsonl"), seed=0).take(40 + order["position"])
    assert {(prompt.epoch, prompt.id) for prompt in taken} == trained | kept and not trained & kept


def test_the_adaptive_coefficient_follows_the_kl(train_locally: Train) -> None:
    metrics = rows(train_locally("--learner.kl_target", 1e-9, "--learner.steps", 3, *UNEVALUATED) / "metrics.jsonl")[4:]
    # the first update has no KL, the later ones far more than the target
    assert [row["kl_coef"] for row in metrics] == pytest.approx([0.04, 0.04 * 0.98, 0.04 * 0.98 * 1.02])


def test_a_second_stage_on_gold_answers_needs_no_rewards(train_locally: Train) -> None:
    steps = ("--supervised.steps", 1, "--learner.steps", 2, *UNEVALUATED)
    run = train_locally("--learner.loss", "sft", "--rollout.group_size", 8, *steps)
    metrics = rows(run / "metrics.jsonl")
    assert [row["stage"] for row in metrics] == ["supervised", "rl", "rl"]
    assert all(row["reward"] is None and row["ratio_max"] is None for row in metrics)


def test_a_resumed_run_may_change_its_loss(train_locally: Train) -> None:
    run = train_locally("--learner.steps", 2, "--learner.eps_low", 0.3, *OF_RL)
    assert main(["train", "--local", "--resume", str(run), "--learner.loss", "dapo", "--learner.steps", "3"]) == 0
    used = read_settings(run / "config.yaml").learner
    assert (used.loss, used.aggregation, used.eps_high, used.eps_low, used.kl_coef) == ("dapo", "token", 0.28, 0.3, 0.0)
    assert rows(run / "metrics.jsonl")[-1]["kl"] is None


def test_the_seeds_flags_choose_our_settings(train_locally: Train) -> None:
    seed = ("--use_grpo", "--grpo_group_size", 3, "--grpo_kl_coeff", 0.1, "--grpo_top_k_ratio", 0.5)
    run = train_locally(*seed, "--gold_score_mode", "f1rougebleudist", "--learner.steps", 1, "--rollout.group_size", 4, *OF_RL)
    used = read_settings(run / "config.yaml")
    assert (used.learner.loss, used.learner.kl_coef, used.learner.top_k_ratio) == ("grpo", 0.1, 0.5)
    assert (used.rollout.group_size, used.reward.mode) == (4, "lapdog")  # our own name wins


def test_a_finished_run_goes_on_to_more_steps(train_locally: Train) -> None:
    warming_up = ("--learner.lr_warmup_steps", 100, *OF_RL)  # before the decay begins, no rate depends on the last step
    run, whole = train_locally("--learner.steps", 2, *warming_up), train_locally(*warming_up)
    assert main(["train", "--local", "--resume", str(run), "--learner.steps", "4"]) == 0
    assert without_clock(run / "metrics.jsonl") == without_clock(whole / "metrics.jsonl")
    assert_same_weights(run, whole)


@pytest.mark.slow
def test_a_sampler_that_dies_changes_nothing_but_the_count_of_restarts(finished_run: Path, train: Train) -> None:
    extra = '[{function: "tests.cluster.own_reward:kill_samplers_at_times", weight: 0}]'
    run = train("--reward.extra", extra)
    metrics = rows(run / "metrics.jsonl")
    assert sum(row["restarts"] for row in metrics) >= 1
    own = "extra/kill_samplers_at_times"
    assert [{k: v for k, v in row.items() if k != own} for row in without_clock(run / "metrics.jsonl")] == without_clock(
        finished_run / "metrics.jsonl"
    )


def test_staleness_stays_within_its_bound(train: Train) -> None:
    metrics = rows(train("--cluster.max_staleness", 2, "--learner.steps", 8) / "metrics.jsonl")
    assert max(row["staleness_max"] for row in metrics) <= 2


def test_in_bfloat16_the_ratio_is_near_one_and_logged(train_locally: Train) -> None:
    run = train_locally("--policy.dtype", "bfloat16", "--supervised.steps", 1, "--learner.steps", 2, *UNEVALUATED)
    assert all(0.9 < row["ratio_max"] < 1.5 for row in rows(run / "metrics.jsonl")[1:])
    assert policy_weights(run)["shared.weight"].dtype == torch.float32


def test_old_checkpoints_go_and_the_best_stays(train_locally: Train) -> None:
    learns = ("--supervised.steps", 20, "--supervised.lr", 0.05, "--supervised.lr_warmup_steps", 0, "--learner.steps", 0)
    run = train_locally(*learns, "--eval_every", 5, "--checkpoint_every", 5, "--keep_checkpoints", 1)
    rewards = {row["step"]: row["reward"] for row in rows(run / "evaluations.jsonl") if row["step"] > 0}
    best = max(rewards, key=lambda step: (rewards[step], -step))  # of equal ones the first
    assert os.readlink(run / "checkpoints" / "best") == f"step-{best}"
    assert os.readlink(run / "checkpoints" / "latest") == "step-20"
    assert {path.name for path in (run / "checkpoints").glob("step-*")} == {f"step-{best}", "step-20"}


def test_training_stops_when_held_out_reward_does_not_rise(train_locally: Train) -> None:
    run = train_locally(
        "--patience", 1, "--eval_every", 1, "--learner.lr", 1e-12, "--learner.steps", 6, "--supervised.steps", 0
    )
    assert len(rows(run / "metrics.jsonl")) == 2
    assert (run / "checkpoints" / "latest").resolve().name == "step-2"


def test_a_run_that_patience_ended_goes_on_where_it_is_told_to(train_locally: Train) -> None:
    nothing = ("--eval_every", 1, "--eval_limit", 2, "--learner.lr", 1e-12, "--learner.steps", 9, "--supervised.steps", 0)
    run = train_locally("--patience", 2, *nothing)
    assert len(rows(run / "metrics.jsonl")) == 3  # the first is the best
    for steps in (5, 7):
        assert main(["train", "--local", "--resume", str(run)]) == 0
        assert len(rows(run / "metrics.jsonl")) == steps


def test_a_resume_that_measures_otherwise_begins_a_series(train_locally: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train_locally("--learner.steps", 2, "--supervised.steps", 0, "--eval_every", 1, "--keep_checkpoints", 9)
    capsys.readouterr()
    more = ("--learner.steps", "4", "--reward.f1", "0.01", "--reward.rouge", "0", "--reward.bleu", "0")
    assert main(["train", "--local", "--resume", str(run), *more]) == 0
    evaluations = rows(run / "evaluations.jsonl")
    assert [row["step"] for row in evaluations] == [0, 1, 2, 2, 3, 4]
    assert len({row["measure"] for row in evaluations[:3]}) == len({row["measure"] for row in evaluations[3:]}) == 1
    best = max(evaluations[3:], key=lambda row: (row["reward"], -row["step"]))
    assert os.readlink(run / "checkpoints" / "best") == f"step-{best['step']}"
    said = capsys.readouterr().out
    assert said.count("held-out figures are measured otherwise from here on") == 1 and MEASURED_OTHERWISE in said


async def test_a_learner_that_is_lost_after_a_stop_cuts_nothing_back(tiny_flags: list[str], tmp_path: Path) -> None:
    flags = ["--local", *tiny_flags, "--supervised.steps", "0", "--checkpoint_every", "1", "--run_dir", str(tmp_path / "run")]

    async def lost(*_: object) -> None:
        raise LearnerLost("learner: its node is gone")

    with training(train_request(flags, None)) as trainer:
        await trainer.start()
        for stage in trainer.stages():
            async with trainer.restart_learner_on_loss():
                await trainer.begin(stage)
                while trainer.has_steps(stage):
                    batch = await trainer.batch()
                    assert batch is not None
                    await trainer.update(batch)
                    if trainer.state.step == 2:
                        trainer.stop, trainer.actors.learner.save = Stop("SIGTERM came", interrupted=True), lost  # type: ignore
                    await trainer.save_if_due()
        await trainer.finish()
    run = tmp_path / "run"
    assert [row["step"] for row in rows(run / "metrics.jsonl")] == [1, 2]
    assert os.readlink(run / "checkpoints" / "latest") == "step-1"
    assert any("gone; what came after the newest checkpoint is not saved" in row["text"] for row in rows(run / "events.jsonl"))


def test_evaluate_gives_the_figures_of_the_run_at_each_checkpoint(
    ray_session: None, train_locally: Train, data_dir: Path, tmp_path: Path
) -> None:
    learns = ("--supervised.lr", 0.05, "--supervised.lr_warmup_steps", 0, "--supervised.batch_size", 8)
    often = ("--eval_every", 10, "--checkpoint_every", 10, "--keep_checkpoints", 9)
    run = train_locally("--supervised.steps", 40, *learns, *often)
    evaluated = {row["step"]: {key: row[key] for key in EVALUATION} for row in rows(run / "evaluations.jsonl")}
    steps = (10, 30, 40)
    assert len({json.dumps(evaluated[step]) for step in steps}) == len(steps)  # figures tell one step's weights from another's

    output, predictions = tmp_path / "out.json", tmp_path / "predictions.jsonl"
    flags = ["--data", data_dir / "valid.jsonl", "--passages", data_dir / "passages.jsonl", "--limit", 6]
    flags += ["--output", output, "--predictions", predictions]
    for step in steps:
        assert main(["evaluate", "--checkpoint", str(run / "checkpoints" / f"step-{step}"), *map(str, flags)]) == 0
        assert json.loads(output.read_text()) == evaluated[step]
    assert len(rows(predictions)) == 6 and len(rows(predictions)[0]["passages"]) == 2


def test_a_plain_model_folder_is_evaluated_on_what_it_reads_without_constant_reply(
    finished_run: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished_run / "checkpoints" / "latest" / "policy", tmp_path / "model")
    output, data = tmp_path / "out.json", tmp_path / "valid.jsonl"
    fits, *_ = rows(data_dir / "valid.jsonl")
    examples = [fits, {"id": "long", "question": "? " * 500, "answers": ["."]}, {**fits, "id": "x", "answers": ["日本"]}]
    data.write_text("".join(json.dumps(example) + "\n" for example in examples))
    flags = ["--data", data, "--passages", data_dir / "passages.jsonl", "--output", output, "--data.max_prompt_tokens", 400]
    assert main(["evaluate", "--checkpoint", str(folder), *map(str, flags), "--policy.n_context", "2"]) == 0
    figures, told = json.loads(output.read_text()), capsys.readouterr().err
    assert figures["constant_reply"] is None and figures["examples"] == 2
    assert f"{data}: 1 of 3 examples are left out, whose prompts exceed data.max_prompt_tokens 400; the first, 'long'" in told
    assert f"1 of 2 gold answers of {data} (50.0%) have characters that the model cannot say; the first is '日本'" in told


def test_evaluate_names_the_first_prompt_that_cannot_be_rewarded(
    finished_run: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.json"
    broken = '[{function: "tests.cluster.own_reward:that_raises_at_a_held_out_prompt"}]'
    flags = ["--data", str(data_dir / "valid.jsonl"), "--output", str(output), "--reward.extra", broken]
    assert main(["evaluate", "--checkpoint", str(finished_run), *flags]) == 2
    named = "reward.extra: 'tests.cluster.own_reward:that_raises_at_a_held_out_prompt' on prompt 'valid-3'"
    expected = f"error: prompt 'valid-3': {named} raised KeyError: 'judge': mend the function or remove it"
    assert capsys.readouterr().err.splitlines()[-1] == expected
    assert not output.exists()


def test_a_users_reward_is_summed_in(train_locally: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = '[{function: "tests.cluster.own_reward:one_each", weight: 5}]'
    run = train_locally("--reward.extra", extra, "--learner.steps", 2, *OF_RL)
    for row in rows(run / "metrics.jsonl"):
        assert row["reward"] == pytest.approx(row["f1"] + row["rougeL"] + row["bleu"] + 5, abs=1e-5)
