"""Kill the driver at random moments, resume each time, and compare with the run that nobody killed.

    python -m benchmarks.resume [--kills 10] [--seed 0] [--samplers 2]

A short run on the demo, max_staleness 0: its driver gets SIGKILL at moments drawn from the length of the whole run, start-up
included. A run that reaches its end is compared bitwise (metrics without clocks, evaluations, weights of policy, reference and
optimiser) and the next one begins, until there were as many kills as wanted. The last line is JSON.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cluster.checkpoint import newest
from cluster.metrics import without_clock

ROOT = Path(__file__).parent.parent
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
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samplers", type=int, default=2)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    flags = [
        part for name, value in (RUN | {"cluster.samplers": options.samplers}).items() for part in (f"--{name}", str(value))
    ]
    with tempfile.TemporaryDirectory() as name:
        undisturbed = Path(name) / "undisturbed"
        start = time.perf_counter()
        assert launch(["train", *flags, "--run_dir", str(undisturbed)], Path(name) / "log") == 0, log(Path(name) / "log")
        length = time.perf_counter() - start
        print(f"undisturbed: {steps(undisturbed)} steps in {length:.0f} s", flush=True)
        kills, equal = 0, True
        while kills < options.kills:
            run = Path(name) / f"run-{kills}"
            while True:
                arguments = ["--resume", str(run)] if (run / "config.yaml").exists() else [*flags, "--run_dir", str(run)]
                after = moments.uniform(0, length) if kills < options.kills else None
                code = launch(["train", *arguments], Path(name) / "log", after)
                if code == 0:
                    break
                assert code == -signal.SIGKILL, log(Path(name) / "log")
                kills += 1
                print(f"kill {kills:2}: {after:5.1f} s after the start, at step {steps(run)}", flush=True)
            differences = compared(run, undisturbed)
            equal = equal and not differences
            print(f"finished: {', '.join(differences) or 'equal bit for bit'}", flush=True)
            shutil.rmtree(run)
    print(json.dumps({"bench": "resume", "kills": kills, "equal": equal}))


def launch(arguments: list[str], output: Path, kill_after_s: float | None = None) -> int:
    """Run launch.py to its end, or kill it then; its exit code."""
    with output.open("w") as out:
        process = subprocess.Popen([sys.executable, "launch.py", *arguments], cwd=ROOT, stdout=out, stderr=out)
        try:
            return process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            return process.wait()


def log(path: Path) -> str:
    return path.read_text()[-2000:]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def compared(run: Path, other: Path) -> list[str]:
    """What differs between two finished runs."""
    different = []
    if [without_clock(row) for row in rows(run / "metrics.jsonl")] != [
        without_clock(row) for row in rows(other / "metrics.jsonl")
    ]:
        different.append("metrics.jsonl")
    if rows(run / "evaluations.jsonl") != rows(other / "evaluations.jsonl"):
        different.append("evaluations.jsonl")
    checkpoints = [newest(folder / "checkpoints", print) for folder in (run, other)]
    [ours, theirs] = [checkpoint[0] for checkpoint in checkpoints if checkpoint is not None]
    for file in sorted(theirs.rglob("*.safetensors")):
        name = file.relative_to(theirs)
        if not (ours / name).is_file() or (ours / name).read_bytes() != file.read_bytes():
            different.append(str(name))
    return different


if __name__ == "__main__":
    main()
