"""A training run: its actors, its place in the stages, its files. `launch.train` composes these verbs."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cluster.actors.learner_client import LearnerLosses, LearnerLost
from cluster.actors.ports import ActorHandles
from cluster.actors.replica import InputsLost
from cluster.settings.tree import Settings
from cluster.store.checkpoint import Checkpoints, TrainState, newest
from cluster.store.failed_prompts import FailedPrompts
from cluster.store.records import best_of
from cluster.store.run_folder import RunFolder, read_settings
from cluster.training import pipeline_state
from cluster.training.held_out import HeldOut
from cluster.training.inputs import Inputs
from cluster.training.isolation import FailedPrompt
from cluster.training.pipeline import Batch, Pipeline
from cluster.training.rollout_client import RolloutClient, Snapshot
from cluster.training.step_record import metrics_row
from cluster.training.stop_signals import install_stop_handlers
from cluster.watch.run_log import RunLog
from cluster.watch.terminal import OutputMode
from learner.config import Stage
from learner.update_metrics import UpdateMetrics
from rollout.types import Version

Say = Callable[[str], None]


class Trainer:
    def __init__(
        self,
        settings: Settings,
        inputs: Inputs,
        folder: RunFolder,
        build_actors: Callable[[Say], ActorHandles],
        output_mode: OutputMode,
    ):
        self.settings, self.inputs, self.folder = settings, inputs, folder
        self.checkpoints = Checkpoints(folder.checkpoints, settings.keep_checkpoints)
        self.run_log = RunLog(settings, folder, output_mode)
        handles = build_actors(self.run_log.event)
        self.samplers, self.rewards, self.learner, self.nodes = (
            handles.samplers,
            handles.rewards,
            handles.learner,
            handles.nodes,
        )
        self.failed_prompts = FailedPrompts(
            folder, settings.cluster.max_failed_prompts, len(inputs.train), len(inputs.valid), self.run_log.event
        )
        self.held_out = HeldOut(settings, inputs, folder, self.samplers, self.rewards, self.failed_prompts)
        self.run_log.watch(handles, self._queues, self.failed_prompts)
        self.state = TrainState()
        self.weights = Snapshot(Version(0, 0))
        self.stop_reason: str | None = None
        self.pipeline: Pipeline | None = None
        self._restored: Path | None = None
        self._losses = LearnerLosses()
        self._saving = self._signalled = False
        self._restarts_recorded = 0
        self._step_started: float | None = None

    def resume(self, checkpoint: tuple[Path, TrainState] | None) -> None:
        """Go on from a checkpoint, None is the start, under a new incarnation; the per-step files are cut back to its step."""
        self._restored, state = checkpoint or (None, TrainState())
        if self._restored is not None and state.ready:
            before = read_settings(self._restored / "config.yaml")
            if (before.rollout, before.reward) != (self.settings.rollout, self.settings.reward):
                state.requeue_ready()  # they were sampled otherwise
        last = max(state.incarnation, self.state.incarnation, *self.folder.incarnations())
        self.state = replace(state, incarnation=last + 1)
        self._losses.reached(state.step)
        if not self._signalled:
            self.stop_reason = None  # what ended the patience is undone
        self.run_log.rewind(state.step)
        self.failed_prompts.rewind(state.step)
        self.checkpoints.discard_after(state.step)
        kept = [row for row in self.folder.evaluation_rows() if self.checkpoints.has(row["step"])]
        self.checkpoints.mark_best(best_of(kept).step)

    async def start(self) -> None:
        """Start all actors at once and wait for the learner; from here on a signal ends in a checkpoint."""
        install_stop_handlers(self._stop_on_signal)
        await self.run_log.start()
        self.samplers.start()
        self.rewards.start()
        if self.nodes is not None:
            self.nodes.start()
        self.held_out.find_constant_reply(self.state.constant_reply)
        async with self.restart_learner_on_loss():
            await self._start_learner()

    def stages(self) -> Iterator[Stage]:
        """The stage of the next step, or of an evaluation that a stop left undone, until something stops the run; a run stopped
        at once is still saved once."""
        while self.stop_reason is None or not self.checkpoints.exist():
            *_, last = self.settings.stages()
            undone = [stage for stage in self.settings.stages() if stage.last > self.state.step]
            if not undone and not self.held_out.is_due(self.state.step, at_the_end_of_a_stage=True):
                return
            yield (undone or [last])[0]

    @contextlib.asynccontextmanager
    async def restart_learner_on_loss(self) -> AsyncIterator[None]:
        """A learner that is lost inside is replaced by one from the newest checkpoint, whose stage comes next: what was sampled
        for the lost one is dropped, its prompts come again. Raises ClusterError where it is lost again and again."""
        try:
            yield
        except LearnerLost as error:
            lost: LearnerLost | None = error
            while lost is not None:
                lost = await self._replace_learner(lost)

    async def begin(self, stage: Stage) -> None:
        """Give the learner a new stage (a restored one goes on); evaluates the policy if that was left undone."""
        at = next((each for each in self.settings.stages() if each.name == self.state.stage), stage)
        await self._evaluate_if_due(at)
        if self.state.stage != stage.name:
            await self.learner.ask("begin", stage)
            self.state.begin(stage.name)
            await self._publish()
        source = RolloutClient(self.samplers, self.rewards, stage, self.weights, self._republished)
        self._step_started = None
        self.pipeline = await pipeline_state.restored(
            self.state, self._restored, source, self.inputs.train, self.settings, self._leave_out
        )
        if self.stop_reason is not None:
            await self._save(self.pipeline)

    def has_steps(self, stage: Stage) -> bool:
        return self.state.step < stage.last and self.stop_reason is None

    async def batch(self) -> Batch:
        """The next batch of scored groups, by reference."""
        assert self.pipeline is not None, "begin() comes first"
        self._step_started = self._step_started or time.perf_counter()  # a batch may have to be made again
        self.pipeline.admit()
        return await self.pipeline.batch()

    async def update(self, batch: Batch) -> None:
        """One step of the learner, and of the run: metrics, fresh weights, evaluation and checkpoint where they are due."""
        assert self.pipeline is not None, "begin() comes first"
        stage, step = self.pipeline.stage, self.state.step + 1
        log = self.folder.sample_log(step) if stage.sampled else None
        try:
            update, seconds = await self.learner.ask("update", step, log, *batch.references)
        except InputsLost as error:
            self.run_log.event(f"step {step}: {error}; its groups are made again")
            self.pipeline.give_back(batch)
            if self.stop_reason is not None:
                await self._save(self.pipeline)
            return
        self.state.step = step
        self._losses.reached(step)
        if stage.sampled:
            await self._publish()
        self.pipeline.trained(batch, self.weights)
        self._record(self.pipeline, batch, update, seconds)
        if self.run_log.output_lost is not None and self.stop_reason is None:
            self.stop_reason = f"its output cannot be written ({self.run_log.output_lost.strerror})"
        await self._evaluate_if_due(stage)
        if self._save_is_due(stage):
            await self._save(self.pipeline)

    @property
    def restarts(self) -> int:
        return self.samplers.restarts + self.rewards.restarts + self.learner.restarts

    async def finish(self) -> None:
        """Say what the run achieved, and where everything lies."""
        await self.run_log.finish(self.state.step, self.stop_reason, interrupted=self._signalled)

    def close(self) -> None:
        """End what this run started."""
        with contextlib.ExitStack() as parts:
            for part in (self.run_log, self.learner, self.rewards, self.samplers):
                parts.callback(part.close)
            if self.pipeline is not None:
                parts.callback(self.pipeline.cancel)
            parts.callback(self.held_out.close)
            if self.nodes is not None:
                parts.callback(self.nodes.close)

    async def _start_learner(self) -> None:
        await self.learner.start()
        if self._restored is not None:
            stage = next(stage for stage in self.settings.stages() if stage.name == self.state.stage)
            await self.learner.ask("restore", self._restored, stage)
        if self.state.incarnation:  # samplers may hold the weights of another
            await self._publish()

    async def _replace_learner(self, error: LearnerLost) -> LearnerLost | None:
        """Go back to the newest checkpoint, or to the start, with a new learner; what it met if that is lost, too."""
        self._losses.add(error)
        if self.pipeline is not None:
            self.pipeline.cancel()
            self.pipeline = None
        checkpoint = newest(self.folder.checkpoints, self.run_log.event)
        self.run_log.event(f"{error}; going on from step {checkpoint[1].step if checkpoint else 0} with a new one")
        self.resume(checkpoint)
        try:
            await self._start_learner()
        except LearnerLost as again:
            return again
        return None

    async def _publish(self) -> None:
        """Raises LearnerLost: samplers that wait for weights which never come would seem to hang."""
        self.weights = self.learner.publish(Version(self.state.incarnation, self.state.step))
        await self.learner.check()

    async def _republished(self) -> Snapshot:
        """The weights once more, where they were lost with a node. Raises LearnerLost."""
        await self.learner.check()
        if self.weights.references:
            await self._publish()
        return self.weights

    def _leave_out(self, failed: FailedPrompt) -> None:
        step = self.state.step if self._saving else self.state.step + 1
        self.failed_prompts.add("train", step, failed)

    async def _evaluate_if_due(self, stage: Stage) -> None:
        """Evaluate the policy, remember the best, stop where the second stage has not raised it for `patience` evaluations."""
        step, patience = self.state.step, self.settings.patience
        if self.stop_reason is not None or not self.held_out.is_due(step, at_the_end_of_a_stage=step == stage.last):
            return
        if self.weights.version.step != step:
            await self._publish()
        with self.run_log.timing("evaluate"):
            row = await self.held_out.evaluate(step, stage.name if step else "start", self.weights, self._republished)
            await self.run_log.evaluation(row)
        best = self.held_out.best()
        if best.step == step:
            self.checkpoints.mark_best(step)
        elif patience and best.evaluations_since >= patience:
            self.stop_reason = f"held-out reward has not risen for {patience} evaluations"

    def _save_is_due(self, stage: Stage) -> bool:
        step = self.state.step
        every = self.settings.checkpoint_every
        due = step == stage.last or (every > 0 and step % every == 0)
        return due or self.stop_reason is not None or self.held_out.best().step == step

    async def _save(self, pipeline: Pipeline) -> None:
        self.state.constant_reply = await self.held_out.constant_reply()
        self._saving = True
        try:
            ready = pipeline_state.note(pipeline, self.state)
        finally:
            self._saving = False

        async def write(folder: Path) -> None:
            await self.learner.ask("save", folder)
            await pipeline_state.write_groups(self.rewards, ready, folder, self.state)

        with self.run_log.timing("save"):
            await self.checkpoints.save(self.state, self.folder.path / "config.yaml", write, self.held_out.best().step)

    def _record(self, pipeline: Pipeline, batch: Batch, update: UpdateMetrics, seconds_update: float) -> None:
        seconds_step, self._step_started = time.perf_counter() - (self._step_started or 0.0), None
        row = metrics_row(self.state, pipeline.stage, batch, update, seconds_update, seconds_step)
        row["restarts"] = self.restarts - self._restarts_recorded
        self._restarts_recorded = self.restarts
        self.run_log.step(row)
        if update.skipped:
            ids = ", ".join(key.id for key in update.skipped_prompts)
            self.run_log.event(f"step {self.state.step} skipped: its loss or gradient is not finite; its prompts are {ids}")

    def _queues(self) -> dict[str, int]:
        return self.pipeline.queues if self.pipeline is not None else {}

    def _stop_on_signal(self, name: str) -> None:
        self.stop_reason, self._signalled = f"{name} came", True
        self.run_log.event(f"{name}: finishing this step, then saving; once more leaves at once")
