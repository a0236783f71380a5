"""A run as Prometheus sees it, and what Grafana asks Prometheus for."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import requests
import yaml

from cluster.watch.series import all_series, documented
from tests.cluster.head import free_ports
from tests.cluster.runs import DEADLINE_S, ROOT, Process

MONITORING = ROOT / "examples" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "lapdog.json").read_text())
PAGE = ROOT / "docs" / "monitoring.md"
ALERTS = MONITORING / "alerts.yml"
SIZES = {"sampler": 2, "reward": 1, "learner": 1}
DISCOVERY = "prom_metrics_service_discovery.json"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="no prometheus: apt-get install prometheus (Debian)"
)


@dataclass
class Prometheus:
    """A server with our configuration, but for where Ray lists its nodes and how often they are asked."""

    folder: Path
    targets: Path

    def __post_init__(self) -> None:
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"]["scrape_interval"] = "1s"
        (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
        assert discovery["files"] == [f"/tmp/ray/{DISCOVERY}"]
        discovery["files"] = [str(self.targets)]
        config["rule_files"] = [str(MONITORING / name) for name in config["rule_files"]]
        file = self.folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={self.folder / 'data'}"]
        self._log = (self.folder / "log").open("w")
        self._process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=self._log)

    def query(self, expression: str) -> list[Any]:
        """The series of an instant query that have a value; none while the server is not yet up."""
        try:
            response = requests.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=10)
        except requests.ConnectionError:
            return []
        if response.status_code == requests.codes.unavailable:  # it reads its storage
            return []
        answer = response.json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return [series for series in answer["data"]["result"] if series["value"][1] != "NaN"]

    def await_series(self, expressions: list[str]) -> None:
        until, missing = time.monotonic() + DEADLINE_S, expressions
        while missing := [expression for expression in missing if not self.query(expression)]:
            assert time.monotonic() < until, f"no series for {missing}"
            time.sleep(0.2)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path, tmp_path / DISCOVERY)
    yield server
    server.close()


def expressions(run: str) -> list[str]:
    """Every query of the dashboard's panels, its variables replaced as Grafana does."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [as_asked(expression, run) for expression in asked]


def annotations(run: str) -> list[str]:
    return [as_asked(annotation["target"]["expr"], run) for annotation in DASHBOARD["annotations"]["list"]]


def of_panel(title: str, run: str, window: str) -> list[str]:
    [panel] = [panel for panel in DASHBOARD["panels"] if panel["title"] == title]
    return [as_asked(target["expr"], run, window) for target in panel["targets"]]


def as_asked(expression: str, run: str, window: str = "30s") -> str:
    for variable, value in (("$run", run), ("$window", window), ("$__range", "1h")):
        expression = expression.replace(variable, value)
    return expression


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


@contextlib.contextmanager
def ended_after(seen: Callable[[], None], run: Path) -> Iterator[None]:
    """A run in this process is stopped by a signal once `seen` returns or raises, however long a step or a scrape takes."""
    running = threading.Event()

    def end() -> None:
        try:
            seen()
        finally:
            while running.is_set() and not (run / "metrics.jsonl").exists():  # nobody heeds the signal yet
                time.sleep(0.1)
            if running.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        running.set()
        ended = pool.submit(end)
        try:
            yield
        finally:
            running.clear()
    ended.result()


@needs_prometheus
@pytest.mark.integration
def test_every_query_of_dashboard_and_page_finds_series_of_a_run(
    prometheus: Prometheus, train: Callable[..., Path], tmp_path: Path
) -> None:
    node = next(node for node in ray.nodes() if node["Alive"])
    prometheus.targets.write_text(json.dumps([{"targets": [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"]}]))
    documented = re.findall(r"\| `(sum by .+)` \|", PAGE.read_text())
    assert len(documented) == 4
    asked = expressions("watched") + [each.replace("[5m]", "[30s]") for each in documented]
    run = tmp_path / "watched"
    with ended_after(lambda: prometheus.await_series(asked), run):
        train("--run_dir", run, "--learner.steps", 1_000_000, "--eval_samples", 2, "--eval_reading", "none")
    lost, resumed, ended = annotations("watched")
    prometheus.await_series([ended])
    assert prometheus.query(lost) == prometheus.query(resumed) == []


def test_the_dashboard_shows_every_series() -> None:
    shown = set(re.findall(r"ray_lapdog_(\w+)", "\n".join([*expressions(""), *annotations("")])))
    assert shown == {series.name for series in all_series()}


@needs_prometheus
@pytest.mark.integration
def test_the_configuration_passes_prometheus_own_check() -> None:
    subprocess.run(["promtool", "check", "config", MONITORING / "prometheus.yml"], check=True)


def check_answers(
    folder: Path, interval: str, series: dict[str, str], answers: list[tuple[str, int, float | None, str]]
) -> None:
    """answers: query, minute, value or None, labels."""

    def answer(asked: str, minute: int, value: float | None, labels: str) -> dict[str, Any]:
        samples = [] if value is None else [{"labels": labels, "value": value}]
        return {"expr": asked, "eval_time": f"{minute}m", "exp_samples": samples}

    test = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [answer(*expected) for expected in answers],
    }
    (folder / "test.yml").write_text(yaml.safe_dump({"tests": [test]}))
    subprocess.run(["promtool", "test", "rules", folder / "test.yml"], check=True)


@needs_prometheus
@pytest.mark.integration
def test_panels_of_speed_tell_the_truth_of_steps_longer_than_a_scrape(tmp_path: Path) -> None:
    minutes = range(11)

    def every_30_s(a_step: int) -> str:
        """A counter that a step of a minute adds to at its end."""
        return " ".join(f"{a_step * minute} {a_step * minute}" for minute in minutes)

    phase = 'ray_lapdog_phase_seconds_total{{run="r", phase="{}"}}'
    series = {
        phase.format("sample"): every_30_s(30),
        phase.format("reward"): every_30_s(6),
        phase.format("update"): every_30_s(45),
        phase.format("step"): every_30_s(60),
        'ray_lapdog_steps_total{run="r"}': every_30_s(1),
        'ray_lapdog_tokens_total{run="r", role="learner"}': every_30_s(6000),
        'ray_lapdog_restarts_total{run="r", role="sampler"}': "0x11 1x8",
    } | {f'ray_lapdog_actors{{run="r", role="{role}", state="idle"}}': f"{count}x20" for role, count in SIZES.items()}
    samplers, rewards, learner = of_panel("How busy actors are", "r", "5m")
    [seconds] = of_panel("Seconds of a step", "r", "5m")
    [tokens] = of_panel("Response tokens", "r", "5m")
    [replaced] = of_panel("Actors replaced within $window", "r", "5m")
    at_work = [
        (samplers, 10, 30 / 60 / 2, '{run="r"}'),
        (rewards, 10, 6 / 60, '{run="r"}'),
        (learner, 10, 45 / 60, '{run="r"}'),
    ]
    check_answers(
        tmp_path,
        "30s",
        series,
        [
            *at_work,
            (f"{seconds} == 60", 10, 60.0, '{run="r", phase="step"}'),
            (tokens, 10, 100.0, '{run="r", role="learner"}'),
            (replaced, 8, 1.0, '{run="r", role="sampler"}'),
        ],
    )


@needs_prometheus
@pytest.mark.integration
def test_annotations_mark_a_lost_actor_and_a_run_that_another_driver_resumes(tmp_path: Path) -> None:
    lost, resumed, _ = annotations("r")
    series = {
        'ray_lapdog_restarts_total{run="r", role="sampler", WorkerId="a"}': "0 0 0 1 1 1 1 _ _ _ _",
        'ray_lapdog_incarnation{run="r", WorkerId="a"}': "0 0 0 0 0 0 stale",
        'ray_lapdog_incarnation{run="r", WorkerId="b"}': "_ _ _ _ _ _ _ 1 1 1 1",
    }
    answers = [
        (lost, 2, None, ""),
        (lost, 3, 1.0, '{run="r", role="sampler"}'),
        (resumed, 5, None, ""),
        (resumed, 7, 1.0, '{run="r"}'),
        (resumed, 10, None, ""),
    ]
    check_answers(tmp_path, "1m", series, answers)


@needs_prometheus
@pytest.mark.integration
def test_alerts_tell_a_run_that_is_ill_from_one_that_is_well() -> None:
    subprocess.run(["promtool", "test", "rules", "alerts.yml"], cwd=Path(__file__).parent, check=True)


def test_alerts_ask_for_series_that_there_are() -> None:
    asked = {name for rule in alerts() for name in re.findall(r"ray_lapdog_(\w+)", rule["expr"])}
    assert asked and asked <= {series.name for series in all_series()}


def test_panels_have_titles_descriptions_units_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"]


def test_the_files_that_bring_up_grafana_fit_each_other() -> None:
    compose = yaml.safe_load((MONITORING / "docker-compose.yml").read_text())["services"]
    mounts = dict(mount.split(":")[:2] for service in compose.values() for mount in service["volumes"])
    inside = {target: MONITORING / source for source, target in mounts.items() if source.startswith(".")}
    assert all(source.exists() for source in inside.values())
    assert f"--config.file={next(t for t in inside if t.endswith('.yml'))}" in compose["prometheus"]["command"]
    [provider] = yaml.safe_load(next(MONITORING.glob("grafana/provisioning/dashboards/*")).read_text())["providers"]
    assert (inside[provider["options"]["path"]] / "lapdog.json").is_file()
    [source] = yaml.safe_load(next(MONITORING.glob("grafana/provisioning/datasources/*")).read_text())["datasources"]
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in compose["prometheus"]["command"]
    assert inside["/etc/grafana/provisioning"] == MONITORING / "grafana/provisioning"


def test_the_documented_series_are_those_of_the_code() -> None:
    assert documented() in PAGE.read_text(), "write it anew: python -m cluster.watch.series"


@needs_prometheus
@pytest.mark.integration
@pytest.mark.slow
def test_prometheus_finds_a_run_by_the_file_that_ray_writes(
    tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="ray-") as place:  # a socket's path is 107 characters long at most
        monkeypatch.setenv("RAY_TMPDIR", place)
        process = Process("train", *tiny_flags, "--run_dir", tmp_path / "run", "--learner.steps", 100000)
        prometheus = Prometheus(tmp_path, Path(place) / "ray" / DISCOVERY)
        try:
            process.until(" rl ")
            prometheus.await_series(['ray_lapdog_step{run="run"}', 'up{job="ray"} == 1'])
        finally:
            prometheus.close()
            process.terminate()
            process.communicate(timeout=DEADLINE_S)
