"""A training run on Ray: its actors, its place in the stages, its files. `launch.train` composes these verbs."""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import held_out
from cluster.checkpoint import Checkpoints, TrainState
from cluster.config import Settings
from cluster.inputs import Inputs
from cluster.learner_client import LearnerClient
from cluster.metrics import metrics_row
from cluster.pipeline import Batch, Pipeline, PublishedWeights
from cluster.pool import forget
from cluster.replicas import learner_actor, reward_pool, sampler_pool
from cluster.run_folder import RunFolder
from cluster.session import Shares
from cluster.stop import heed_stop_signals
from cluster.terminal import Terminal, evaluation_line, evaluation_table
from learner.config import Stage
from learner.update_metrics import UpdateMetrics
from rollout.dataset import PromptOrder
from rollout.types import Prompt, Version

FIRST_POSITION = {"epoch": 0, "position": 0}


class Trainer:
    def __init__(self, settings: Settings, inputs: Inputs, folder: RunFolder, policy_path: str, shares: Shares):
        self.settings, self.inputs, self.folder = settings, inputs, folder
        self.checkpoints = Checkpoints(folder.checkpoints, settings.keep_checkpoints)
        namespace = f"{folder.path.name}-{uuid.uuid4().hex[:8]}"
        self.samplers = sampler_pool(settings, shares, namespace, policy_path)
        self.rewards = reward_pool(settings, shares, namespace)
        self.learner = LearnerClient(
            learner_actor(settings, shares, namespace, policy_path),
            settings.cluster.start_deadline_s,
            settings.cluster.call_deadline_s,
            f"see its log, then go on with --resume {folder.path}",
        )
        self.state = TrainState(train_data=inputs.digest())
        self.weights = PublishedWeights(Version(0, 0))
        self.terminal = Terminal(sum(stage.steps for stage in settings.stages()))
        self.stop_reason: str | None = None
        self.pipeline: Pipeline | None = None
        self._restored: Path | None = None
        self._counted = {"requeued": 0, "restarts": 0}

    def resume(self, checkpoint: Path, state: TrainState) -> None:
        """Go on from a checkpoint under a new incarnation; the per-step files are cut back to its step."""
        self._restored, self.state = checkpoint, state
        self.state.incarnation += 1
        self.folder.cut_back(state.step)
        self.checkpoints.discard_after(state.step)

    async def start(self) -> None:
        """Start all actors at once and wait for the learner; from here on a signal ends in a checkpoint."""
        heed_stop_signals(self._stop_on_signal)
        self.samplers.start()
        self.rewards.start()
        self._constant_reply = asyncio.ensure_future(self._find_constant_reply())
        await self.learner.ask("ready")
        if self._restored is not None:
            stage = next(stage for stage in self.settings.stages() if stage.name == self.state.stage)
            await self.learner.ask("restore", self._restored, stage)
            self._publish()
            await self._evaluate_if_due(stage)

    def stages(self) -> Iterator[Stage]:
        """The stages that are not finished, until something stops the run; a run stopped at once is still saved once."""
        for stage in self.settings.stages():
            if self.stop_reason is not None and self.checkpoints.exist():
                return
            if stage.last > self.state.step:
                yield stage

    async def begin(self, stage: Stage) -> None:
        """Give the learner a new stage (a restored one goes on); evaluates the policy that nobody has trained yet."""
        if self.state.step == 0:
            await self._evaluate_if_due(stage)
        if self.state.stage != stage.name:
            await self.learner.ask("begin", stage)
            self.state.stage, self.state.order, self.state.pending = stage.name, dict(FIRST_POSITION), []
            self.state.set_aside = []
            self._publish()
        self.pipeline = self._new_pipeline(stage)
        if self.stop_reason is not None:
            await self._save(self.pipeline)

    def goes_on(self, stage: Stage) -> bool:
        return self.state.step < stage.last and self.stop_reason is None

    async def batch(self) -> Batch:
        """The next batch of scored groups, by reference."""
        assert self.pipeline is not None, "begin() comes first"
        self._step_started = time.perf_counter()
        self.pipeline.admit()
        return await self.pipeline.batch()

    async def update(self, batch: Batch) -> None:
        """One step of the learner, and of the run: metrics, fresh weights, evaluation and checkpoint where they are due."""
        assert self.pipeline is not None, "begin() comes first"
        stage, self.state.step = self.pipeline.stage, self.state.step + 1
        log = self.folder.sample_log(self.state.step) if stage.sampled else None
        update, seconds = await self.learner.ask("update", self.state.step, log, *batch.references)
        if stage.sampled:
            self._publish()
        self.pipeline.trained(batch, self.weights)
        self._record(self.pipeline, batch, update, seconds)
        await self._evaluate_if_due(stage)
        if self._save_is_due(stage):
            await self._save(self.pipeline)

    def report(self) -> str:
        """What the run achieved, and where everything lies."""
        lines = [f"stopped at step {self.state.step}: {self.stop_reason}"] if self.stop_reason else []
        if rows := self.folder.evaluation_rows():
            lines.append(evaluation_table(rows))
        lines.append(f"run folder: {self.folder.path}")
        if self.stop_reason:
            lines.append(f"go on with: python launch.py train --resume {self.folder.path}")
        return "\n".join(lines)

    def close(self) -> None:
        """End what this run started."""
        self.terminal.close()
        if hasattr(self, "_constant_reply"):
            forget(self._constant_reply)
        if self.pipeline is not None:
            self.pipeline.cancel()
        self.samplers.close()
        self.rewards.close()
        self.learner.close()

    def _new_pipeline(self, stage: Stage) -> Pipeline:
        by_id = {prompt.id: prompt for prompt in self.inputs.train}
        return Pipeline(
            samplers=self.samplers,
            rewards=self.rewards,
            weights=self.weights,
            stage=stage,
            order=PromptOrder(self.inputs.train, self.settings.seed, **self.state.order),
            prompts_per_call=self.settings.rollout.prompts_per_call,
            max_staleness=self.settings.cluster.max_staleness,
            prompts_left=(stage.last - self.state.step) * stage.prompts_per_step,
            dynamic_sampling=self.settings.rollout.dynamic_sampling if stage.sampled else 0,
            queue=deque(replace(by_id[id], epoch=epoch, attempt=attempt) for epoch, id, attempt in self.state.pending),
            set_aside=deque(replace(by_id[id], epoch=epoch, attempt=attempt) for epoch, id, attempt in self.state.set_aside),
        )

    def _publish(self) -> None:
        self.weights = self.learner.publish(Version(self.state.incarnation, self.state.step))

    async def _evaluate_if_due(self, stage: Stage) -> None:
        """Evaluate the held-out file before, between and after the stages and every `eval_every` steps, once a step."""
        step = self.state.step
        due = step in (0, stage.last) or self._every(self.settings.eval_every)
        if not due or not self.inputs.valid or self.stop_reason is not None:
            return
        if any(row["step"] == step for row in self.folder.evaluation_rows()):
            return
        if self.weights.version.step != step:
            self._publish()
        constant_reply = await self._constant_reply
        figures, _ = await held_out.evaluate(self.samplers, self.rewards, self.inputs.valid, self.weights, constant_reply)
        row = {"step": step, "stage": stage.name if step else "start", **figures}
        self.folder.append(self.folder.evaluations, row)
        self.terminal.say(evaluation_line(row))
        if step:
            self._note_best(stage, figures["reward"])

    def _note_best(self, stage: Stage, reward: float | None) -> None:
        """Remember the best held-out reward of training; stop where GRPO has not raised it for `patience` evaluations."""
        state, patience = self.state, self.settings.patience
        if reward is None:
            return
        if state.best_reward is None or reward > state.best_reward:
            state.best_reward, state.best_step, state.evaluations_without_rise = reward, state.step, 0
            self.checkpoints.mark_best(state.step)
        elif stage.sampled:
            state.evaluations_without_rise += 1
            if patience and state.evaluations_without_rise >= patience:
                self.stop_reason = f"held-out reward has not risen for {patience} evaluations"

    def _save_is_due(self, stage: Stage) -> bool:
        step = self.state.step
        due = step == stage.last or self._every(self.settings.checkpoint_every) or self.state.best_step == step
        return due or self.stop_reason is not None

    async def _save(self, pipeline: Pipeline) -> None:
        self.state.constant_reply = await self._constant_reply
        self.state.order = pipeline.order.state()
        self.state.pending = [_saved(prompt) for prompt in pipeline.unfinished()]
        self.state.set_aside = [_saved(prompt) for prompt in pipeline.set_aside]

        async def write(folder: Path) -> None:
            await self.learner.ask("save", folder)

        await self.checkpoints.save(self.state, self.folder.path / "config.yaml", write)

    def _record(self, pipeline: Pipeline, batch: Batch, update: UpdateMetrics, seconds_update: float) -> None:
        seconds_step = time.perf_counter() - self._step_started
        row = metrics_row(self.state, pipeline.stage, batch, update, seconds_update, seconds_step)
        total = {"requeued": pipeline.requeued, "restarts": self.samplers.restarts + self.rewards.restarts}
        row |= {name: max(0, total[name] - self._counted[name]) for name in total}
        self._counted = total
        self.folder.append(self.folder.metrics, row)
        self.terminal.step(row)
        if update.skipped:
            ids = ", ".join(key.id for key in update.skipped_prompts)
            self.terminal.say(f"step {self.state.step} skipped: its loss or gradient is not finite; its prompts are {ids}")

    async def _find_constant_reply(self) -> str:
        if self.state.constant_reply is not None:
            return self.state.constant_reply
        prompts, seed = self.inputs.train, self.settings.seed
        reply, _ = await self.rewards.call(lambda actor: [actor.constant_reply.remote(prompts, seed)])
        return reply

    def _stop_on_signal(self, name: str) -> None:
        self.stop_reason = f"{name} came"
        self.terminal.say(f"{name}: finishing this step, then saving; once more leaves at once")

    def _every(self, steps: int) -> bool:
        return steps > 0 and self.state.step % steps == 0


def _saved(prompt: Prompt) -> list[Any]:
    return [prompt.epoch, prompt.id, prompt.attempt]
