"""TensorBoard, Weights & Biases and MLflow hold what the run's files hold, and no secrets reach the run's folder."""

import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.actors.retry_policy import RetryPolicy
from cluster.settings.tree import TrackerName
from cluster.store.run_folder import RunFolder, read_settings
from cluster.watch.monitor import Ending
from cluster.watch.trackers import services
from cluster.watch.trackers.background import Background, without_secrets
from cluster.watch.trackers.monitor import Trackers, scalars
from cluster.watch.trackers.services import TensorBoard, Tracker
from launch import main
from rollout.errors import SettingsError
from tests.cluster.runs import DEADLINE_S, ROOT, assert_same_weights, copy_as_of, rows

SECRET = "0123456789abcdef0123456789abcdef01234567"
Curves = dict[str, list[tuple[int, float]]]


def of_files(run: Path) -> Curves:
    """(step, value) of every scalar in the run's files."""
    curves: Curves = {}
    for prefix, file in (("train/", "metrics.jsonl"), ("held_out/", "evaluations.jsonl")):
        for row in rows(run / file):
            for name, value in scalars(row, prefix).items():
                curves.setdefault(name, []).append((row["step"], value))
    return curves


def of_tensorboard(folder: Path) -> Curves:
    """As TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def of_mlflow(uri: str, id: str, names: list[str]) -> Curves:
    import mlflow

    client = mlflow.MlflowClient(uri)
    return {name: [(point.step, point.value) for point in client.get_metric_history(id, name)] for name in names}


def of_wandb(folder: Path) -> Curves:
    import wandb
    from wandb.proto import wandb_internal_pb2 as wire

    wandb.teardown()  # a run that is finished may still be on its way to the file
    curves: Curves = {}
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        for data in log_records(file.read_bytes()):
            record = wire.Record.FromString(data)
            row = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name in (name for name in row if "/" in name):
                curves.setdefault(name, []).append((row["step"], row[name]))
    return curves


def log_records(data: bytes) -> Iterator[bytes]:
    """Of a file in LevelDB's log format, after 7 bytes of W&B's own."""
    at, record = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def assert_same(shown: Curves, made: Curves) -> None:
    assert shown.keys() == made.keys()
    for name, points in made.items():
        assert [step for step, _ in shown[name]] == [step for step, _ in points], name
        assert [value for _, value in shown[name]] == pytest.approx([value for _, value in points], rel=1e-6), name


def test_tensorboard_shows_what_the_files_hold(finished_run: Path) -> None:
    made = of_files(finished_run)
    assert {"train/reward", "train/kl", "held_out/f1", "held_out/recall_at_1", "held_out/constant_reply/f1"} <= set(made)
    assert [step for step, _ in made["train/loss"]] == list(range(1, 9))
    assert_same(of_tensorboard(finished_run / "tensorboard"), made)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """W&B and MLflow without a network; the address of MLflow's server."""
    for package, install in services.INSTALL.items():
        pytest.importorskip(package, reason=f"{package} is missing: pip install {install}")
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    environment = {"WANDB_MODE": "offline", "WANDB_API_KEY": SECRET}
    environment |= {"MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_TOKEN": SECRET}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return address


def assert_no_secrets(folder: Path) -> None:
    assert not [file for file in folder.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


async def test_a_tracker_that_is_opened_again_goes_on_with_its_run(finished_run: Path, tmp_path: Path, database: str) -> None:
    settings, folder = read_settings(finished_run / "config.yaml"), tmp_path / "run"
    folder.mkdir()
    numbers = [(row["step"], scalars(row, "train/")) for row in rows(finished_run / "metrics.jsonl")]

    async def tracked(name: TrackerName) -> str:
        id = None
        for part in (numbers[:6], numbers[6:]):
            tracker = Background(name, services.TRACKERS[name](settings, folder), print)
            id = await tracker.open(id)
            for step, values in part:
                tracker.log(step, values)
            end(tracker)
        assert id is not None
        return id

    made = {name: points for name, points in of_files(finished_run).items() if name.startswith("train/")}
    await tracked("wandb")
    assert_same(of_wandb(folder / "wandb"), made)
    assert_same(of_mlflow(database, await tracked("mlflow"), list(made)), made)
    assert_no_secrets(folder)


@pytest.mark.integration
def test_wandb_without_a_key_asks_nobody_for_one(finished_run: Path, tmp_path: Path) -> None:
    script = f"""import asyncio
from pathlib import Path
from cluster.store.run_folder import RunFolder, read_settings
from cluster.watch.monitor import Ending
from cluster.watch.trackers.services import Wandb
Wandb(read_settings(Path({str(finished_run / "config.yaml")!r})), Path({str(tmp_path)!r})).open(None)"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")} | {"HOME": str(tmp_path)}
    ours, theirs = pty.openpty()
    terminal: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": subprocess.PIPE}
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, timeout=DEADLINE_S, **terminal)
    os.close(ours)
    os.close(theirs)
    assert ended.stderr.decode().splitlines()[-1] == "ConnectionError: no key is known: wandb login, or WANDB_API_KEY"


@pytest.mark.slow
def test_trackers_hold_what_the_files_of_a_resumed_run_hold(train: Callable[..., Path], database: str) -> None:
    run = train("--trackers", "wandb,mlflow", "--learner.steps", 2)
    ids = json.loads((run / "trackers.json").read_text())
    assert main(["train", "--resume", str(run), "--learner.steps", "3"]) == 0

    made = of_files(run)
    assert [step for step, _ in made["train/loss"]] == list(range(1, 8))
    assert json.loads((run / "trackers.json").read_text()) == ids
    assert_same(of_tensorboard(run / "tensorboard"), made)
    assert_same(of_wandb(run / "wandb"), made)
    assert_same(of_mlflow(database, ids["mlflow"], list(made)), made)
    assert_no_secrets(run)


class MlflowServer(BaseHTTPRequestHandler):
    """Answers as one that knows no experiment and one run; keeps what is logged to it, and who asks."""

    metrics: dict[str, list[tuple[int, float]]]
    authorizations: set[str | None]

    def do_GET(self) -> None:
        missing = "get-by-name" in self.path
        self._answer({"error_code": "RESOURCE_DOES_NOT_EXIST"} if missing else {"run": self._run()}, 404 if missing else 200)

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for metric in sent.get("metrics", ()):
            self.metrics.setdefault(metric["key"], []).append((metric["step"], metric["value"]))
        self._answer({"experiment_id": "1", "run": self._run(), "run_info": self._run()["info"]})

    def log_message(self, *_: object) -> None:
        return

    def _run(self) -> dict[str, Any]:
        return {
            "info": {"run_id": "r", "run_uuid": "r", "run_name": "run", "experiment_id": "1", "status": "RUNNING"},
            "data": {},
        }

    def _answer(self, body: dict[str, Any], code: int = 200) -> None:
        self.authorizations.add(self.headers["Authorization"])
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def test_a_server_of_mlflows_is_told_all_and_the_terminal_no_password(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason=f"mlflow is missing: pip install {services.INSTALL['mlflow']}")
    MlflowServer.metrics, MlflowServer.authorizations = {}, set()
    with ThreadingHTTPServer(("127.0.0.1", 0), MlflowServer) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter@127.0.0.1:{server.server_port}")
        run = copy_as_of(finished_run, tmp_path / "run", 6)
        code = main(["train", "--local", "--resume", str(run), "--trackers", "mlflow", "--json"])
        server.shutdown()
    assert code == 0 and [step for step, _ in MlflowServer.metrics["train/loss"]] == [7, 8]
    assert MlflowServer.authorizations == {"Basic bWU6aHVudGVy"}
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["step"] == 8 and "hunter" not in said.out + said.err


def test_steps_that_are_gone_back_to_are_forgotten(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    for step in range(5):
        board.log(step, {"train/loss": float(step)})
    board.rewind(2)
    board.log(3, {"train/loss": 30.0})
    board.close(finished=True)
    assert of_tensorboard(tmp_path) == {"train/loss": [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]}


def test_scalars_are_finite_numbers_under_names_that_all_trackers_take() -> None:
    row: dict[str, Any] = {"step": 3, "time": 1.0, "stage": "rl", "kl": None, "loss": float("nan"), "skipped": 0}
    row |= {"recall@5": 50.0, "constant_reply": {"text": "hello", "f1": 16.3}, "extra/kürze!": 1.0}
    names = {"x/skipped": 0.0, "x/recall_at_5": 50.0, "x/constant_reply/f1": 16.3, "x/extra/kürze_": 1.0}
    assert scalars(row, "x/") == names


def test_a_tracker_that_is_not_installed_is_told_before_ray_starts(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wandb").mkdir()  # as W&B leaves one where it is used; it is no package
    monkeypatch.setattr(services, "find_spec", lambda name: None)
    monkeypatch.setattr("cluster.commands.train.ray_actors", None)
    assert main(["train", *tiny_flags, "--run_dir", str(tmp_path / "run"), "--trackers", "wandb"]) == 2
    assert capsys.readouterr().err == "error: trackers: wandb is not installed; pip install 'wandb>=0.31', or leave wandb out\n"
    assert not (tmp_path / "run").exists()


def end(tracker: Background, seconds: float = DEADLINE_S) -> None:
    tracker.end(finished=True)
    tracker.wait(time.monotonic() + seconds)


class Moody(Tracker):
    """A tracker whose server fails at the calls that it is told to fail at."""

    place = "https://me:word@host/runs"

    def __init__(self, *fails: str):
        self.fails, self.calls, self.logged = fails, list[str](), list[int]()

    def open(self, id: str | None) -> str:
        self._meet("open")
        return id or "new"

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._meet(f"log {step}")
        self.logged.append(step)

    def close(self, finished: bool) -> None:
        self.finished = finished
        self._meet("close")

    def _meet(self, what: str) -> None:
        self.calls.append(what)
        if what in self.fails:
            raise ConnectionError(f"cannot reach {self.place} with key {SECRET}")


async def used(tracker: Moody, said: list[str]) -> str:
    background = Background("moody", tracker, said.append)
    try:
        id = await background.open(None)
        for step in range(3):
            background.log(step, {"train/loss": 1.0})
        return id
    finally:
        end(background)


async def test_what_is_sent_arrives_before_the_end() -> None:
    tracker, said = Moody(), list[str]()
    assert await used(tracker, said) == "new" and tracker.logged == [0, 1, 2]
    assert said == ["moody: https://***@host/runs"]


@pytest.mark.parametrize("fails", [("log 1", "log 2"), ("close",)])
async def test_a_tracker_that_fails_is_told_of_once_without_secrets(
    fails: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    tracker, said = Moody(*fails), list[str]()
    await used(tracker, said)
    met = "ConnectionError: cannot reach https://***@host/runs with key ***"
    assert said[1:] == [f"moody fails and is given up ({met}); a resume tries it again"]
    assert tracker.calls[-1] == fails[0]  # what was still to be sent is not tried


async def test_trackers_that_take_nothing_hold_no_run(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, said = threading.Event(), list[str]()
    monkeypatch.setattr(TensorBoard, "log", lambda *_: free.wait())
    monkeypatch.setattr(Moody, "log", lambda *_: free.wait())
    monkeypatch.setitem(services.TRACKERS, "mlflow", lambda *_: Moody())
    settings = read_settings(finished_run / "config.yaml").with_values(trackers=("mlflow",))
    trackers = Trackers(settings, RunFolder(tmp_path), said.append, RetryPolicy(tracker_close_s=0.2))
    await trackers.start()
    trackers.step({"step": 1, "loss": 1.0})
    await trackers.finish(Ending(1, None, finished=True, resume=""))
    trackers.close()
    free.set()
    left = "has not taken all at the end of the run and is left; a resume tries it again"
    assert said[1:] == [f"mlflow {left}", f"tensorboard {left}"]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_run_that_is_stopped_by_a_signal_is_not_finished_to_its_tracker(
    is_stopped: bool, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Signalling(Moody):
        def open(self, id: str | None) -> str:
            if is_stopped:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().open(id)

    tracker = Signalling()
    monkeypatch.setitem(services.TRACKERS, "mlflow", lambda *_: tracker)
    run = copy_as_of(finished_run, tmp_path / "run", 6)
    assert main(["train", "--local", "--resume", str(run), "--trackers", "mlflow"]) == 0
    assert tracker.finished != is_stopped and rows(run / "metrics.jsonl")[-1]["step"] == (6 if is_stopped else 8)


@pytest.mark.integration
def test_a_tracker_that_does_not_open_keeps_nobody_from_leaving() -> None:
    script = """import asyncio, threading
from cluster.watch.trackers.background import Background
from cluster.watch.trackers.services import Tracker
class Stuck(Tracker):
    def open(self, id):
        threading.Event().wait()
async def interrupted():
    opening = asyncio.create_task(Background("stuck", Stuck(), print).open(None))
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
asyncio.run(interrupted())"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.integration
def test_a_full_disk_under_tensorboard_is_told_once(tmp_path: Path) -> None:
    script = f"""import asyncio, resource, signal, time
from pathlib import Path
from cluster.watch.trackers.background import Background
from cluster.watch.trackers.services import TensorBoard
async def tracked():
    board = Background("tensorboard", TensorBoard(Path({str(tmp_path)!r})), print)
    await board.open(None)
    for step in range(1000):
        board.log(step, {{"train/loss": 1.0}})
    board.end(finished=True)
    board.wait(time.monotonic() + {DEADLINE_S})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
asyncio.run(tracked())"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S)
    told = "tensorboard fails and is given up (OSError: [Errno 27] File too large); a resume tries it again\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, told, "")


def test_a_run_goes_on_without_tensorboard(finished_run: Path, tmp_path: Path) -> None:
    run = copy_as_of(finished_run, tmp_path / "run", 6)
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").write_text("in its way")
    (run / "trackers.json").write_text("{")  # belongs to trackers that are not named
    assert main(["train", "--local", "--resume", str(run)]) == 0
    assert_same_weights(run, finished_run)
    told = [row["text"] for row in rows(run / "events.jsonl") if "tensorboard" in row["text"]]
    assert len(told) == 1 and told[0].startswith("tensorboard fails and is given up (FileExistsError: ")


def test_ids_of_trackers_that_cannot_be_read_are_refused_where_they_are_needed(
    finished_run: Path, tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_as_of(finished_run, tmp_path / "run", 6)
    (run / "trackers.json").write_text("[]")
    assert main(["train", "--local", "--resume", str(run), "--trackers", "mlflow"]) == 2
    expected = f"error: {run / 'trackers.json'}: holds no ids; remove it, and the trackers begin new runs\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "name", ["X_API_KEY", "aws_access_key_id", "TOKEN", "DB_PASS", "db_pwd", "SSH_PASSPHRASE", "BLOB_CONNECTION_STRING"]
)
def test_values_of_variables_that_hold_secrets_are_not_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "gh7/kp")
    assert without_secrets("no entry with gh7/kp") == "no entry with ***"


def test_folders_and_short_values_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/runs/one")
    monkeypatch.setenv("USE_TOKEN", "1")
    assert without_secrets("/runs/one/mlflow.db, try 1") == "/runs/one/mlflow.db, try 1"


def test_addresses_are_told_without_passwords_and_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi0123456789")
    text = "at https://user:p@ss@host/runs?api_key=abc (dapi0123456789), try http://host/x"
    assert without_secrets(text) == "at https://***@host/runs?*** (***), try http://host/x"
    assert without_secrets("postgresql://me:pa/ss@db.host/mlflow") == "postgresql://***@db.host/mlflow"


async def test_a_tracker_that_cannot_be_reached_at_the_start_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    with pytest.raises(SettingsError, match=re.escape("trackers: moody cannot be reached (ConnectionError: ")) as met:
        await used(Moody("open"), [])
    assert SECRET not in str(met.value) and "word" not in str(met.value)
    assert not caplog.records  # asyncio complains of exceptions that nobody looked at
