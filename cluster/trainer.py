"""A training run on Ray: its actors, its place in the stages, its files. `launch.train` composes these verbs."""

import asyncio
import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from cluster import evaluation
from cluster.checkpoint import Checkpoints, TrainState
from cluster.config import Settings
from cluster.inputs import Inputs
from cluster.metrics import metrics_row
from cluster.pipeline import Batch, Pipeline, Weights
from cluster.pool import awaited, first_line, forget
from cluster.replicas import learner_actor, reward_pool, sampler_pool
from cluster.run_folder import RunFolder
from cluster.session import Shares
from cluster.terminal import Terminal, evaluation_line, evaluation_table
from learner.config import Stage
from learner.learner import UpdateMetrics
from rollout.dataset import PromptOrder
from rollout.errors import ClusterError
from rollout.types import Version

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
FIRST_POSITION = {"epoch": 0, "position": 0}


class Trainer:
    def __init__(self, settings: Settings, inputs: Inputs, folder: RunFolder, policy_path: str, shares: Shares):
        self.settings, self.inputs, self.folder = settings, inputs, folder
        self.checkpoints = Checkpoints(folder.checkpoints, settings.keep_checkpoints)
        namespace = f"{folder.path.name}-{uuid.uuid4().hex[:8]}"
        self.samplers = sampler_pool(settings, shares, namespace, policy_path)
        self.rewards = reward_pool(settings, shares, namespace)
        self.learner = learner_actor(settings, shares, namespace, policy_path)
        self.state = TrainState()
        self.weights = Weights(Version(0, 0))
        self.stop_reason: str | None = None
        self.pipeline: Pipeline  # of the stage that runs
        self._restored: Path | None = None
        self._counted: dict[str, int] = {}

    def resume(self, newest: tuple[Path, TrainState]) -> None:
        """Go on from a checkpoint under a new incarnation; the per-step files are cut back to its step."""
        self._restored, self.state = newest
        self.state.incarnation += 1
        self.folder.cut_back(self.state.step)

    async def start(self) -> None:
        """Start all actors at once, wait for the learner, and heed SIGTERM and SIGINT from here on."""
        self._heed_signals()
        self.terminal = Terminal(sum(stage.steps for stage in self.settings.stages()), self.state.step)
        self.samplers.start()
        self.rewards.start()
        self._constant_reply = asyncio.ensure_future(self._find_constant_reply())
        await self._ask_learner("ready")
        if self._restored is not None:
            await self._ask_learner("restore", self._restored, self._stage_named(self.state.stage))
            self._publish()

    def stages(self) -> Iterator[Stage]:
        """The stages that are not finished, until something stops the run; a run stopped at once is still saved once."""
        for stage in self.settings.stages():
            if self.stop_reason is not None and (self.folder.checkpoints / "latest").exists():
                return
            if stage.last > self.state.step:
                yield stage

    async def begin(self, stage: Stage) -> None:
        """Give the learner a new stage (a restored one goes on); evaluates the policy that nobody has trained yet."""
        if self.state.step == 0 and not self.folder.evaluation_rows():
            await self._evaluate("start")
        if self.state.stage != stage.name:
            await self._ask_learner("begin", stage)
            self.state.stage, self.state.order, self.state.pending = stage.name, dict(FIRST_POSITION), []
            self._publish()
        self.pipeline = self._new_pipeline(stage)
        if self.stop_reason is not None:
            await self._save()

    def goes_on(self, stage: Stage) -> bool:
        return self.state.step < stage.last and self.stop_reason is None

    async def batch(self) -> Batch:
        """The next batch of scored groups, by reference."""
        self._step_started = time.perf_counter()
        self.pipeline.admit()
        return await self.pipeline.batch()

    async def update(self, batch: Batch) -> UpdateMetrics:
        """One step of the learner; the version that follows is published to the samplers."""
        stage, self.state.step = self.pipeline.stage, self.state.step + 1
        log = self.folder.sample_log(self.state.step) if stage.mode == "sample" else None
        update, seconds = await self._ask_learner("update", self.state.step, log, *batch.groups)
        if stage.mode == "sample":
            self._publish()
        self.pipeline.trained(batch, self.weights)
        self._record(stage, batch, update, seconds)
        return update

    async def evaluate_and_save_if_due(self) -> None:
        step, stage = self.state.step, self.pipeline.stage
        evaluation_due = step == stage.last or self._every(self.settings.eval_every)
        if evaluation_due and self.stop_reason is None:
            await self._evaluate(stage.name)
        stops = self.stop_reason is not None
        if stops or step == stage.last or self._every(self.settings.checkpoint_every) or self.state.best_step == step:
            await self._save()

    def report(self) -> str:
        """What the run achieved, and where everything lies."""
        lines = [f"stopped at step {self.state.step}: {self.stop_reason}"] if self.stop_reason else []
        if rows := self.folder.evaluation_rows():
            lines.append(evaluation_table(rows))
        lines.append(f"run folder: {self.folder.path}")
        if self.stop_reason or self.state.step == 0:
            lines.append(f"go on with: python launch.py train --resume {self.folder.path}")
        return "\n".join(lines)

    def close(self) -> None:
        """End what this run started."""
        self.terminal.close()
        forget(self._constant_reply)
        if hasattr(self, "pipeline"):
            self.pipeline.cancel()
        for pool in (self.samplers, self.rewards):
            pool.close()
        ray.kill(self.learner)

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
            queue=deque(replace(by_id[id], epoch=epoch) for epoch, id in self.state.pending),
        )

    def _publish(self) -> None:
        """The newest weights as a method result of the learner: the driver owns it, so it outlives the learner."""
        version = Version(self.state.incarnation, self.state.step)
        self.weights = Weights(version, [self.learner.weights.remote()])

    async def _evaluate(self, stage: str) -> None:
        self.state.constant_reply = await self._constant_reply
        if not self.inputs.valid:
            return
        if self.weights.version.step != self.state.step:
            self._publish()
        figures, _ = await evaluation.evaluate(
            self.samplers, self.rewards, self.inputs.valid, self.weights, self.state.constant_reply
        )
        row = {"step": self.state.step, "stage": stage, **figures}
        self.folder.append(self.folder.evaluations, row)
        self.terminal.say(evaluation_line(row))
        if stage != "start":
            self._note_best(stage, figures["reward"])

    def _note_best(self, stage: str, reward: float) -> None:
        """Remember the best held-out reward of training; stop where GRPO has not raised it for `patience` evaluations."""
        state, patience = self.state, self.settings.patience
        if state.best_reward is None or reward > state.best_reward:
            state.best_reward, state.best_step, state.evaluations_without_rise = reward, state.step, 0
        elif stage == "grpo":
            state.evaluations_without_rise += 1
            if patience and state.evaluations_without_rise >= patience:
                self.stop_reason = f"held-out reward has not risen for {patience} evaluations"

    async def _save(self) -> None:
        state, pipeline = self.state, self.pipeline
        state.constant_reply = await self._constant_reply
        state.order = pipeline.order.state()
        state.pending = [[prompt.epoch, prompt.id] for prompt in pipeline.unfinished()]

        async def write(folder: Path) -> None:
            await self._ask_learner("save", folder)

        await self.checkpoints.save(state, self.folder.path / "config.yaml", write)

    def _record(self, stage: Stage, batch: Batch, update: UpdateMetrics, seconds_update: float) -> None:
        seconds_step = time.perf_counter() - self._step_started
        row = metrics_row(self.state, stage, batch, update, seconds_update, seconds_step)
        total = {"requeued": self.pipeline.requeued, "restarts": self.samplers.restarts + self.rewards.restarts}
        row |= {name: total[name] - self._counted.get(name, 0) for name in total}
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

    async def _ask_learner(self, method: str, *arguments: Any) -> Any:
        """Await a call to the learner; ClusterError if it dies or does not answer in time."""
        cluster = self.settings.cluster
        deadline = cluster.start_deadline_s if method == "ready" else cluster.call_deadline_s
        try:
            return await asyncio.wait_for(awaited(getattr(self.learner, method).remote(*arguments)), deadline)
        except TimeoutError as error:
            raise ClusterError(f"learner: {method} gave no answer in {deadline:g} s; {self._how_to_go_on()}") from error
        except RayActorError as error:
            raise ClusterError(f"learner: died in {method} ({first_line(error)}); {self._how_to_go_on()}") from error

    def _how_to_go_on(self) -> str:
        return f"see its log, then go on with --resume {self.folder.path}"

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def stop(caught: signal.Signals) -> None:
            self.stop_reason = f"{caught.name} came"
            self.terminal.say(f"{caught.name}: finishing this step, then saving; once more leaves at once")
            for each in STOP_SIGNALS:
                loop.remove_signal_handler(each)

        if threading.current_thread() is threading.main_thread():
            for each in STOP_SIGNALS:
                loop.add_signal_handler(each, stop, each)

    def _every(self, steps: int) -> bool:
        return steps > 0 and self.state.step % steps == 0

    def _stage_named(self, name: str) -> Stage:
        return next(stage for stage in self.settings.stages() if stage.name == name)
