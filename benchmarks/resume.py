"""Kill the driver at random moments, resume each time, and compare with the run that nobody killed.

    python -m benchmarks.resume [--kills 10] [--seed 0] [--samplers 2]

A short run on the demo, max_staleness 0: its driver gets SIGKILL some instants after it has reached steps drawn at random, a
quarter of the times while it is starting up, and is resumed after each. At its end it is compared bitwise (metrics without
clocks, evaluations, weights of policy, reference and optimiser) with one that nobody killed. The last line is JSON.
"""

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.store.checkpoint import newest
from cluster.store.rows import Row
from cluster.store.run_folder import RunFolder

ROOT = Path(__file__).parent.parent
START_UP_KILLS = 0.25
OF_THE_CLOCK = ("time", "seconds_", "tokens_per_s", "groups_per_s", "bytes_sync", "peak_memory_mb", "incarnation", "restarts")
STEPS_A_KILL = 3  # that a run may go on until a kill meets it
MOST_KILLS = 19
RUN = {
    "policy.tiny.d_model": 32,
    "policy.tiny.d_ff": 64,
    "policy.tiny.layers": 1,
    "supervised.steps": 30,
    "supervised.batch_size": 8,
    "rollout.group_size": 4,
    "rollout.prompts_per_step": 8,
    "rollout.prompts_per_call": 4,
    "learner.steps": 30,
    "eval_every": 10,
    "eval_limit": 32,
    "checkpoint_every": 7,
    "cluster.threads": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, choices=range(1, MOST_KILLS + 1), metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samplers", type=int, default=2)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    settings = RUN | {"seed": options.seed, "cluster.samplers": options.samplers}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory() as name:
        output, undisturbed, run = Path(name) / "log", Path(name) / "undisturbed", Path(name) / "run"
        start_up_s = launch(["train", *flags, "--run_dir", str(undisturbed)], output, undisturbed)
        all_steps = steps(undisturbed)
        print(f"undisturbed: {all_steps} steps", flush=True)
        step_s = statistics.median(row["seconds_step"] for row in RunFolder(undisturbed).metric_rows())
        for kill, step in enumerate(sorted(rng.choices(range(all_steps - STEPS_A_KILL * options.kills), k=options.kills)), 1):
            moment = rng.uniform(0, start_up_s) if rng.random() < START_UP_KILLS else None
            launch(arguments(run, flags), output, run, Kill(step, moment, rng.uniform(0, step_s)))
            print(f"kill {kill:2}: {'in a step' if moment is None else 'starting up'}, {steps(run)} steps done", flush=True)
        launch(arguments(run, flags), output, run)
        differences = compared(run, undisturbed)
    print(f"compared with the undisturbed run: {', '.join(differences) or 'equal bit for bit'}")
    print(json.dumps({"bench": "resume", "kills": options.kills, "equal": not differences}))


@dataclass(frozen=True)
class Kill:
    """So many seconds after the start, if no step is finished before, or `delay_s` after a step was finished."""

    step: int
    after_start_s: float | None
    delay_s: float

    def is_due(self, run: Path, seconds: float, steps_before: int) -> bool:
        if self.after_start_s is not None:
            return seconds >= self.after_start_s or steps(run) > steps_before
        if steps(run) < self.step or steps(run) == steps_before:
            return False
        time.sleep(self.delay_s)
        return True


def arguments(run: Path, flags: list[str]) -> list[str]:
    return ["train", "--resume", str(run)] if (run / "config.yaml").exists() else ["train", *flags, "--run_dir", str(run)]


def launch(arguments: list[str], output: Path, run: Path, kill: Kill | None = None) -> float:
    """Run launch.py to its end, or until it is killed; seconds until a step was finished. Ends the benchmark if it fails."""
    before, start, first_step_s = steps(run), time.perf_counter(), 0.0
    with output.open("w") as out:
        process = subprocess.Popen([sys.executable, "launch.py", *arguments], cwd=ROOT, stdout=out, stderr=out)
        while process.poll() is None:
            seconds = time.perf_counter() - start
            if not first_step_s and steps(run) > before:
                first_step_s = seconds
            if kill is not None and kill.is_due(run, seconds, before):
                process.kill()
            time.sleep(0.02)
    wanted = 0 if kill is None else -signal.SIGKILL
    if process.returncode != wanted:
        sys.exit(f"launch.py ended with {process.returncode}, not {wanted}:\n{output.read_text()[-2000:]}")
    return first_step_s


def steps(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def compared(run: Path, other: Path) -> list[str]:
    """What differs between two finished runs."""
    different = []
    if without_clock(RunFolder(run).metric_rows()) != without_clock(RunFolder(other).metric_rows()):
        different.append("metrics.jsonl")
    if RunFolder(run).evaluation_rows() != RunFolder(other).evaluation_rows():
        different.append("evaluations.jsonl")
    checkpoints = [newest(folder / "checkpoints", print) for folder in (run, other)]
    [ours, theirs] = [checkpoint[0] for checkpoint in checkpoints if checkpoint is not None]
    for file in sorted(theirs.rglob("*.safetensors")):
        name = file.relative_to(theirs)
        if not (ours / name).is_file() or (ours / name).read_bytes() != file.read_bytes():
            different.append(str(name))
    return different


def without_clock(rows: list[Row]) -> list[Row]:
    """What does not depend on how fast the machine is or on what happened to the actors."""
    return [{key: value for key, value in row.items() if not key.startswith(OF_THE_CLOCK)} for row in rows]


if __name__ == "__main__":
    main()
