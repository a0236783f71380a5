"""A demo training on a simulated cluster whose actors and nodes are killed, frozen, removed and added at random.

    python -m benchmarks.chaos [--faults 100] [--seed 0] [--steps 100]

Three nodes on this machine, `cluster.samplers auto`, one step of staleness. First a run that nobody disturbs, then the same,
with half of the faults spread over stage 1, half over stage 2. Recovery is the time from a fault to the next finished step.
Lost and twice: prompts of stage 2 that were taken from the order and neither trained on nor kept for later (one set aside as
poison is lost, too: none is), or trained on more than once. The last line is JSON.
"""

import argparse
import json
import math
import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from cluster.store.checkpoint import newest

ROOT = Path(__file__).parent.parent
FAST_HEALTH = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}  # a node that is gone refuses at once
STORE_BYTES = 150 << 20
MOST_NODES, FEWEST_NODES = 3, 1  # beside the head
SUPERVISED_STEPS = 200
RUN = {
    "supervised.steps": SUPERVISED_STEPS,
    "supervised.lr": 1e-3,
    "policy.prompt_template": "{question}",
    "policy.passage_template": "{query} {title} {text}",
    "rollout.max_new_tokens": 16,
    "learner.lr": 3e-4,
    "cluster.samplers": "auto",
    "cluster.max_samplers": 4,
    "cluster.max_staleness": 1,
    "cluster.threads": 1,
    "cluster.call_deadline_s": 20,
    "cluster.start_deadline_s": 60,
    "checkpoint_every": 10,
    "eval_every": 0,
    "eval_limit": 200,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    settings = RUN | {"learner.steps": options.steps, "seed": options.seed}
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(new_token(Path(name)))}
        nodes = Nodes()
        try:
            undisturbed = Run(Path(name) / "undisturbed", settings, nodes.cluster.address)
            undisturbed.wait()
            print(f"undisturbed: {undisturbed.seconds:.0f} s, held-out reward {undisturbed.held_out_reward():.3f}", flush=True)
            run = Run(Path(name) / "disturbed", settings, nodes.cluster.address)
            chaos = Chaos(nodes, run, random.Random(options.seed))
            early = options.faults // 2
            chaos.spread(early, 0, SUPERVISED_STEPS)
            chaos.spread(options.faults - early, SUPERVISED_STEPS, options.steps)
            run.wait()
        finally:
            nodes.close()
        lost, twice = run.accounts()
        rows = run.rows("metrics.jsonl")
        print(f"disturbed: {run.seconds:.0f} s, held-out reward {run.held_out_reward():.3f}")
        for kind, seconds in sorted(chaos.recoveries.items()):
            print(f"{kind:>16} {len(seconds):4} x   recovery {statistics.median(seconds):6.1f} s, worst {max(seconds):6.1f} s")
        dropped = sum(row["requeued"] for row in rows)
        print(f"learners {rows[-1]['incarnation'] + 1}, steps undone {run.undone()}, groups dropped as too old {dropped}")
        all_seconds = [taken for seconds in chaos.recoveries.values() for taken in seconds]
        result = {
            "bench": "chaos",
            "faults": len(all_seconds),
            "lost": lost,
            "twice": twice,
            "finished": True,
            "recovery_s_median": round(statistics.median(all_seconds), 2),
            "recovery_s_worst": round(max(all_seconds), 2),
            "reward": round(run.held_out_reward(), 3),
            "reward_undisturbed": round(undisturbed.held_out_reward(), 3),
        }
        print(json.dumps(result))


class Nodes:
    """A head that stays and nodes that come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # Ray reads where its token is when it is imported

        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE_BYTES, "_system_config": FAST_HEALTH}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.others: list[Any] = []
        for _ in range(2):
            self.add()

    def add(self) -> None:
        self.others.append(self.cluster.add_node(num_cpus=3, object_store_memory=STORE_BYTES))

    def remove(self, node: Any, graceful: bool) -> None:
        self.others.remove(node)
        self.cluster.remove_node(node, allow_graceful=graceful)

    def processes(self, actor_class: str) -> list[psutil.Process]:
        """Those of the actors of a class that are not frozen yet."""
        raylets = [node.all_processes["raylet"][0].process.pid for node in (self.cluster.head_node, *self.others)]
        return [actor for pid in raylets for actor in actor_processes(psutil.Process(pid), actor_class)]

    def close(self) -> None:
        self.cluster.shutdown()


def new_token(folder: Path) -> Path:
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path


class Run:
    """launch.py, which joins the cluster."""

    def __init__(self, folder: Path, settings: dict[str, Any], address: str):
        self.folder, self._log, self._start = folder, folder.with_suffix(".log"), time.perf_counter()
        flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        command = [sys.executable, "launch.py", "train", *flags, "--run_dir", str(folder)]
        with self._log.open("w") as out:
            environment = os.environ | {"RAY_ADDRESS": address}
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment)

    @property
    def has_steps(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> None:
        """Until it has finished; ends the benchmark with its last words if it fails."""
        if self._process.wait() != 0:
            sys.exit(f"launch.py ended with {self._process.returncode}:\n{self._log.read_text()[-4000:]}")
        self.seconds = time.perf_counter() - self._start

    def rows(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def progress(self) -> tuple[int, int]:
        """Incarnation and step of the newest row."""
        rows = self.rows("metrics.jsonl")
        return (rows[-1]["incarnation"], rows[-1]["step"]) if rows else (0, 0)

    def held_out_reward(self) -> float:
        return self.rows("evaluations.jsonl")[-1]["reward"]

    def undone(self) -> int:
        """Steps that were finished and then lost with their learner."""
        lines = [line for line in self._log.read_text().splitlines() if line.lstrip().startswith(("supervised ", "rl "))]
        return len(lines) - len(self.rows("metrics.jsonl"))

    def accounts(self) -> tuple[int, int]:
        """Prompts lost and prompts trained on twice, of stage 2."""
        found = newest(self.folder / "checkpoints", print)
        assert found is not None
        state = found[1]
        trained: Counter[tuple[int, str]] = Counter()
        for file in (self.folder / "samples").glob("step-*.parquet"):
            rows = pq.read_table(file, columns=["epoch", "id"]).to_pylist()
            trained.update({(row["epoch"], row["id"]) for row in rows})
        kept = {(each.epoch, each.id) for each in [*state.pending, *state.filtered, *(group.prompt for group in state.ready)]}
        prompts = len((self.folder / "data" / "train.jsonl").read_text().splitlines())
        taken = state.order["epoch"] * prompts + state.order["position"]
        return taken - len({*trained, *kept}), sum(count - 1 for count in trained.values()) + len(trained.keys() & kept)


class Chaos:
    """recoveries: seconds from each fault to the next finished step, by kind of fault."""

    def __init__(self, nodes: Nodes, run: Run, rng: random.Random):
        self.nodes, self.run, self.rng = nodes, run, rng
        self.recoveries: dict[str, list[float]] = {}

    def spread(self, faults: int, first: int, steps: int) -> None:
        """Over so many steps, each when the run gets there for the first time, some random while into a step."""
        for fault in range(faults):
            self._until_after((0, first + math.ceil(fault * steps / faults) - 1), any_learner=True)
            if not self.run.has_steps:
                return
            time.sleep(self.rng.uniform(0, 1))
            before, start = self.run.progress(), time.perf_counter()
            kind = self._strike()
            self._until_after(before)
            self.recoveries.setdefault(kind, []).append(time.perf_counter() - start)
            print(f"{kind:>16} at step {before[1]:4}, {self.recoveries[kind][-1]:5.1f} s", flush=True)

    def _strike(self) -> str:
        faults: dict[str, Callable[[], bool]] = {
            "sampler killed": lambda: self._signal("SamplerActor", signal.SIGKILL),
            "sampler frozen": lambda: self._signal("SamplerActor", signal.SIGSTOP),
            "reward killed": lambda: self._signal("RewardActor", signal.SIGKILL),
            "reward frozen": lambda: self._signal("RewardActor", signal.SIGSTOP),
            "learner killed": lambda: self._signal("LearnerActor", signal.SIGKILL),
            "learner frozen": lambda: self._signal("LearnerActor", signal.SIGSTOP),
            "node killed": lambda: self._node_leaves(graceful=False),
            "node removed": lambda: self._node_leaves(graceful=True),
            "node added": self._node_joins,
        }
        while True:
            kind = self.rng.choice(list(faults))
            if faults[kind]():
                return kind

    def _signal(self, actor_class: str, sent: signal.Signals) -> bool:
        processes = self.nodes.processes(actor_class)
        if not processes:
            return False
        os.kill(self.rng.choice(processes).pid, sent)
        return True

    def _node_leaves(self, graceful: bool) -> bool:
        if len(self.nodes.others) <= FEWEST_NODES:
            return False
        self.nodes.remove(self.rng.choice(self.nodes.others), graceful)
        return True

    def _node_joins(self) -> bool:
        if len(self.nodes.others) >= MOST_NODES:
            return False
        self.nodes.add()
        return True

    def _until_after(self, place: tuple[int, int], any_learner: bool = False) -> None:
        """Until the run is beyond (incarnation, step), or has ended."""
        while self.run.has_steps:
            incarnation, step = self.run.progress()
            if (step > place[1]) if any_learner else ((incarnation, step) > place):
                return
            time.sleep(0.05)


def actor_processes(ancestor: psutil.Process, actor_class: str) -> list[psutil.Process]:
    """Its descendants that are actors of a class and not frozen."""
    return [child for child in ancestor.children(recursive=True) if _is_actor(child, actor_class)]


def _is_actor(process: psutil.Process, actor_class: str) -> bool:
    try:
        title = "".join(process.cmdline()[:1])
        return title.startswith(f"ray::{actor_class}") and process.status() != psutil.STATUS_STOPPED
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
