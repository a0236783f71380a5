"""A training run: its actors, its place in the stages, its files. `launch.train` composes these verbs."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cluster.actors.actor_ports import ActorPorts
from cluster.actors.corpus_vectors import corpus_vectors
from cluster.actors.errors import InputsLost, LearnerLost
from cluster.actors.job import in_job, job_grace_s
from cluster.actors.learner_port import LearnerLosses
from cluster.actors.snapshots import SnapshotStore
from cluster.actors.tasks import Event
from cluster.settings.tree import Settings
from cluster.store.checkpoint import Checkpoints, RunState, newest
from cluster.store.failed_prompts import FailedPrompts
from cluster.store.rows import best_of
from cluster.store.run_folder import RunFolder
from cluster.training import pipeline_state
from cluster.training.held_out import HeldOutEvaluations
from cluster.training.inputs import Inputs
from cluster.training.pipeline import Batch, Pipeline
from cluster.training.rollout_client import RolloutClient
from cluster.training.step_record import metrics_row
from cluster.training.stop_signals import Grace, install_stop_handlers
from cluster.watch.monitor import Stop
from cluster.watch.run_log import RunLog
from cluster.watch.terminal import OutputMode
from learner.config import Stage
from rollout.types import Mode, Version


class Trainer:
    def __init__(
        self,
        settings: Settings,
        inputs: Inputs,
        folder: RunFolder,
        build_actors: Callable[[Event], ActorPorts],
        output_mode: OutputMode,
    ):
        self.settings, self.inputs, self.folder = settings, inputs, folder
        self.checkpoints = Checkpoints(folder.checkpoints, settings.keep_checkpoints)
        self.run_log = RunLog(settings, folder, output_mode)
        self.actors = build_actors(self.run_log.event)
        vectors = corpus_vectors(settings, inputs.passages, self.actors.samplers, self.actors.index, self.run_log.event)
        self.snapshots = SnapshotStore(self.actors.learner, Version(0, 0), vectors)
        counts = {file: len(prompts) for file, prompts in inputs.files.items()}
        self.failed_prompts = FailedPrompts(folder, settings.cluster.max_failed_prompts, counts, self.run_log.event)
        self.held_out = HeldOutEvaluations(settings, inputs, folder, self._client("greedy"), self.actors.records)
        self.run_log.watch(self.actors, lambda: self.pipeline.queues if self.pipeline else {}, self.failed_prompts)
        self.state = RunState()
        self.stop: Stop | None = None
        self.grace = Grace(job_grace_s() if in_job() else settings.cluster.stop_grace_s, folder.path)
        self.pipeline: Pipeline | None = None
        self._restored: Path | None = None
        self._losses, self._learner_is_gone = LearnerLosses(self.actors.retry.learner_losses), False
        self._restarts_recorded = 0

    def resume(self, checkpoint: tuple[Path, RunState] | None) -> None:
        """Go on from a checkpoint, None is the start, under a new incarnation; the per-step files are cut back to its step."""
        self._restored, state = checkpoint or (None, RunState())
        if self._restored is not None:
            pipeline_state.requeue_what_was_sampled_otherwise(state, self._restored, self.settings)
        last = max(state.incarnation, self.state.incarnation, *self.folder.incarnations())
        self.state = replace(state, incarnation=last + 1)
        if self.stop is not None and not self.stop.interrupted:
            self.stop = None  # what ended the patience is undone
        self.run_log.rewind(state.step)
        self.failed_prompts.rewind(state.step)
        self.checkpoints.discard_after(state.step)
        evaluations = self.folder.evaluation_rows()
        self.checkpoints.mark_best(best_of([row for row in evaluations if self.checkpoints.has(row["step"])]).step)
        if self.held_out.patience_is_over(self.state.patience_from):
            self.state.patience_from = self.state.step  # what ended the run is not to end it at once again

    async def start(self) -> None:
        """Start all actors at once and wait for the learner; from here on a signal ends in a checkpoint."""
        install_stop_handlers(self._stop_on_signal)
        await self.run_log.start(*self.inputs.told, *self.held_out.told())
        self.actors.start()
        self.held_out.find_constant_reply(self.state.constant_reply)
        async with self.restart_learner_on_loss():
            await self._start_learner()
        await self.grace.unless_begun(self.actors.index.opened())
        await self.grace.unless_begun(self.snapshots.embed_corpus())

    def stages(self) -> Iterator[Stage]:
        """Yield the stage of the next step, or of an evaluation that a stop left undone, until the run is complete or stopped;
        a run stopped at once is still saved once."""
        while not self._learner_is_gone and (self.stop is None or not self.checkpoints.exist()):
            *_, last = self.settings.stages()
            undone = [stage for stage in self.settings.stages() if stage.last > self.state.step]
            if not undone and not self.held_out.is_due(self.state.step, at_the_end_of_a_stage=True):
                return
            yield (undone or [last])[0]

    @contextlib.asynccontextmanager
    async def restart_learner_on_loss(self) -> AsyncIterator[None]:
        """A learner that is lost inside is replaced by one from the newest checkpoint, whose stage comes next; prompts sampled
        since come again. A run that is to stop ends as it stands. Raises ClusterError where it is lost again and again."""
        try:
            yield
        except LearnerLost as error:
            if self.stop is not None:
                self._learner_is_gone = True
                self.run_log.event(f"{error}; what came after the newest checkpoint is not saved")
                return
            lost: LearnerLost | None = error
            while lost is not None:
                lost = await self._replace_learner(lost)

    async def begin(self, stage: Stage) -> None:
        """Give the learner a new stage (a restored one goes on), after an evaluation of the policy that was left undone."""
        await self.evaluate_if_due()
        if self.state.stage != stage.name:
            await self.actors.learner.begin(stage)
            self.state.begin(stage.name)
            await self._publish()
        self.pipeline = await pipeline_state.restored(
            self.state, self._restored, self._client(stage.mode), stage, self.actors.records, self.inputs.train, self.settings
        )
        if self.stop is not None:
            await self._save()

    def has_steps(self, stage: Stage) -> bool:
        return self.state.step < stage.last and self.stop is None

    async def batch(self) -> Batch | None:
        """The next batch of scored groups, by reference, without prompts that fail; None if a signal comes before."""
        pipeline = self._pipeline()
        while (batch := await self.grace.unless_begun(pipeline.batch())) is None and not self.grace.has_begun:
            self.failed_prompts.add("train", self.state.step + 1, pipeline.take_failed())
        return batch

    async def update(self, batch: Batch) -> None:
        """One step: fresh weights and a row of metrics. None where groups of the batch are lost, which are made again."""
        pipeline, step = self._pipeline(), self.state.step + 1
        log = self.folder.sample_log(step) if pipeline.stage.sampled else None
        learnt = self.actors.learner.update(step, log, batch.groups)
        try:
            version = Version(self.state.incarnation, step)
            update = await self.snapshots.after(learnt, version, publish=pipeline.stage.sampled)
        except InputsLost as error:
            self.run_log.event(f"step {step}: {error}; its groups are made again")
            pipeline.give_back(batch)
            return
        self.state.step = step
        pipeline.trained(batch)
        seconds = pipeline.client.clock() - batch.asked_at
        restarts, self._restarts_recorded = self.actors.restarts - self._restarts_recorded, self.actors.restarts
        self.run_log.step(metrics_row(self.state, pipeline.stage, batch, update, seconds, restarts))
        if ids := ", ".join(key.id for key in update.metrics.skipped_prompts):
            self.run_log.event(f"step {step} skipped: its loss or gradient is not finite; its prompts are {ids}")
        if (lost := self.run_log.output_lost) is not None and self.stop is None:
            self.stop = Stop(f"its output cannot be written ({lost.strerror})")

    async def evaluate_if_due(self) -> None:
        """Evaluate the policy, remember the best, stop where the second stage has not raised it for `patience` evaluations."""
        step, stage = self.state.step, self._stage()
        if self.stop is not None or not self.held_out.is_due(step, at_the_end_of_a_stage=step == stage.last):
            return
        if self.snapshots.current.version.step != step:
            await self._publish()
        with self.run_log.timing("evaluate"):
            told = stage.name if step else "start", self.failed_prompts, self.state.patience_from
            evaluation = self.held_out.evaluate(step, *told)
            if (row := await self.grace.unless_begun(evaluation)) is None:
                return  # whoever resumes the run evaluates
            await self.run_log.evaluation(row)
        if self.held_out.best().step == step:
            self.checkpoints.mark_best(step)
        elif self.held_out.patience_is_over(self.state.patience_from):
            self.stop = Stop(f"held-out reward has not risen for {self.settings.patience} evaluations")

    async def save_if_due(self) -> None:
        """A checkpoint every so many steps, at the end of a stage, of the best policy so far, and where the run is to stop."""
        step, every = self.state.step, self.settings.checkpoint_every
        due = step == self._stage().last or (every > 0 and step % every == 0)
        if due or self.stop is not None or self.held_out.best().step == step:
            await self._save()

    async def finish(self) -> None:
        """Tell what the run achieved, and where everything lies."""
        await self.run_log.finish(self.state.step, self.stop, self.grace.seconds_left)

    def close(self) -> None:
        """End what this run started."""
        with contextlib.ExitStack() as parts:  # the last first
            parts.callback(self.run_log.close)
            parts.callback(self.actors.close)
            if self.pipeline is not None:
                parts.callback(self.pipeline.cancel)
            parts.callback(self.held_out.close)

    def _client(self, mode: Mode) -> RolloutClient:
        return RolloutClient(self.actors.samplers, self.actors.rewards, self.snapshots, mode, self.actors.retry)

    def _pipeline(self) -> Pipeline:
        assert self.pipeline is not None, "begin() comes first"
        return self.pipeline

    def _stage(self) -> Stage:
        """Of the last step, or the first."""
        stages = self.settings.stages()
        return next((stage for stage in stages if stage.name == self.state.stage), stages[0])

    async def _start_learner(self) -> None:
        await self.actors.learner.start()
        if self._restored is not None:
            await self.actors.learner.restore(self._restored, self._stage())
        if self.state.incarnation:  # samplers may hold the weights of another
            await self._publish()

    async def _replace_learner(self, error: LearnerLost) -> LearnerLost | None:
        """Restart from the newest checkpoint, or from step 0, with a new learner; return its error if it is lost too."""
        self._losses.add(error, self.state.step)
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
        await self.snapshots.publish(Version(self.state.incarnation, self.state.step))

    async def _save(self) -> None:
        pipeline = self._pipeline()
        self.state.constant_reply = await self.held_out.constant_reply()
        ready = pipeline_state.note_position(pipeline, self.state)
        self.failed_prompts.add("train", self.state.step, pipeline.take_failed())  # a resume must not meet them again

        async def write(folder: Path) -> None:
            await self.actors.learner.save(folder)
            await pipeline_state.write_groups(self.actors.records, ready, folder, self.state)

        with self.run_log.timing("save"):
            await self.checkpoints.save(self.state, self.folder.told_files, write, self.held_out.best().step)

    def _stop_on_signal(self, name: str) -> None:
        self.stop = Stop(f"{name} came", interrupted=True)
        self.grace.begin()
        self.run_log.event(f"{name}: saving; once more leaves at once")
