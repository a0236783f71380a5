"""TensorBoard, W&B and MLflow. The last two read address and login from their own environment variables."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from cluster.settings.tree import Settings, TrackerName
from cluster.settings.values import by_name
from rollout.errors import SettingsError

PROJECT = "lapdog"
INSTALL: dict[TrackerName, str] = {"wandb": "'wandb>=0.31'", "mlflow": "mlflow-skinny sqlalchemy alembic"}
PARAMETERS_PER_CALL, PARAMETER_LENGTH = 100, 6000  # more MLflow does not take


def check_installed(trackers: Sequence[TrackerName]) -> None:
    """Raise SettingsError for a tracker whose package is missing."""
    for name in trackers:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name in the working directory is no package
            raise SettingsError(f"trackers: {name} is not installed; pip install {INSTALL[name]}, or leave {name} out")


class Tracker(Protocol):
    """place: where a person finds the run, if not in its folder. `open` goes on with the run of an id that it returned before,
    None begins one. `rewind`: what comes after `step` is made again, and may be shown twice by those that cannot forget."""

    place: str = ""

    def open(self, id: str | None) -> str: ...

    def rewind(self, step: int) -> None:
        return

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self, finished: bool) -> None: ...


class TensorBoard(Tracker):
    """Event files in a folder; each call is on disk when it returns, or raises what it met, which SummaryWriter leaves to a
    thread of its own and its traceback."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._events: RecordWriter | None = None
        self._purged_from: int | None = None

    def open(self, id: str | None) -> str:
        """A folder needs none."""
        return ""

    def rewind(self, step: int) -> None:
        self.close(finished=False)
        self._purged_from = step + 1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._events is None:
            self._begin()
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(step=step, summary=summary))

    def close(self, finished: bool) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _begin(self) -> None:
        self._folder.mkdir(exist_ok=True)
        began = f"{time.time():017.6f}"  # files are read in the order of their names
        file = self._folder / f"events.out.tfevents.{began}.{socket.gethostname()}.{os.getpid()}"
        self._events = RecordWriter(file.open("wb"))
        self._write(Event(file_version="brain.Event:2"))
        if self._purged_from is not None:
            self._write(Event(step=self._purged_from, session_log=SessionLog(status=SessionLog.START)))

    def _write(self, event: Event) -> None:
        assert self._events is not None
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())
        self._events.flush()


class Wandb(Tracker):
    """The project is WANDB_PROJECT or else lapdog."""

    def __init__(self, settings: Settings, folder: Path):
        self._settings, self._folder = settings, folder

    def open(self, id: str | None) -> str:
        import wandb

        mode = wandb.setup(wandb.Settings(silent=True)).settings.mode
        if mode == "online" and not wandb.login(prompt=False):
            raise ConnectionError("no key is known: wandb login, or WANDB_API_KEY")  # rather than wait for one on the terminal
        id = id or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self._folder.name,
            id=id,
            resume="allow",
            dir=self._folder,
            config=self._settings.model_dump(mode="json"),
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True, silent=True),
        )
        self.place = self._run.url or str(self._folder / "wandb")
        self._run.define_metric("*", step_metric="step")  # its own step may not go back, a run's may
        return id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


class Mlflow(Tracker):
    """The server is MLFLOW_TRACKING_URI or else mlflow.db beside the run's folder; the experiment is MLFLOW_EXPERIMENT_NAME or
    else lapdog."""

    def __init__(self, settings: Settings, folder: Path):
        self._settings, self._folder = settings, folder

    def open(self, id: str | None) -> str:
        import mlflow
        from mlflow.entities import Param

        # with a server it prints the run's address, a password in it too, among our own lines
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self.place = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{self._folder.parent / 'mlflow.db'}")
        self._client = mlflow.MlflowClient(self.place)
        if id is not None:
            self._client.update_run(id, status="RUNNING")
            self._id = id
            return id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        self._id = str(self._client.create_run(experiment, run_name=self._folder.name).info.run_id)
        parameters = [Param(name, str(value)[:PARAMETER_LENGTH]) for name, value in by_name(self._settings).items()]
        for i in range(0, len(parameters), PARAMETERS_PER_CALL):
            self._client.log_batch(self._id, params=parameters[i : i + PARAMETERS_PER_CALL])
        return self._id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[Metric(name, value, now_ms, step) for name, value in values.items()])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")


TRACKERS: dict[TrackerName, Callable[[Settings, Path], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow}
