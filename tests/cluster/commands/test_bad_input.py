"""Every mistake of a user ends in one line that names place, value and remedy, exit code 2, and nothing half-written."""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.settings.tree import Settings
from cluster.store.checkpoint import Checkpoints, RunState, newest
from cluster.store.run_folder import RunFolder, choose_run_dir
from launch import COMMANDS, main
from rollout.errors import CheckpointError, SettingsError, writing
from tests.cluster.runs import without_tiny

GOOD = {"question": "persona: i run. context:  Q: hi ?", "answers": ["hello ."]}
PASSAGE = {"id": "p", "title": "t", "text": "some text"}


class Case:
    """A folder with good files, in which a case breaks one thing."""

    def __init__(self, folder: Path):
        self.folder, self.run = folder, folder / "run"
        self.train = self.jsonl("train.jsonl", GOOD, GOOD | {"question": "persona: i sing. context:  Q: ho ?"})
        self.passages = self.jsonl("passages.jsonl", PASSAGE)

    def jsonl(self, name: str, *rows: object) -> Path:
        return self.file(name, "".join(json.dumps(row) + "\n" for row in rows))

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def parquet(self, name: str, **columns: list[object]) -> Path:
        pq.write_table(pa.table(columns), self.folder / name)
        return self.folder / name

    def cut(self, path: Path) -> Path:
        path.write_bytes(path.read_bytes()[:-4])
        return path

    def pipe(self, name: str) -> Path:
        os.mkfifo(self.folder / name)
        return self.folder / name

    def link(self, name: str, target: str) -> Path:
        (self.folder / name).symlink_to(target)
        return self.folder / name

    def flags(self, **changed: object) -> list[str]:
        settings = {
            "run_dir": self.run,
            "data.train": self.train,
            "data.passages": self.passages,
            "data.cache": self.folder / "cache",
            "policy.n_context": 1,
        } | {name.replace("__", "."): value for name, value in changed.items()}
        return ["train", *(part for name, value in settings.items() if value is not None for part in (f"--{name}", str(value)))]


def yaml(case: Case, text: str) -> list[str]:
    return [*case.flags(), "--config", str(case.file("settings.yaml", text))]


CASES: dict[str, tuple[Callable[[Case], list[str]], str]] = {
    "unknown command": (lambda c: ["do"], "do: no such command; the commands are train, evaluate"),
    "misspelt command": (lambda c: ["reprot"], "reprot: no such command; did you mean report?"),
    "misspelt switch": (lambda c: [*c.flags(), "--quite"], "--quite: unknown setting; did you mean quiet?"),
    "dry run as JSON": (lambda c: [*c.flags(), "--dry-run", "--json"], "--json: changes nothing about a dry run; leave it out"),
    "unknown flag": (
        lambda c: [*c.flags(), "--learner.lrate", "1"],
        "--learner.lrate: unknown setting; did you mean learner.lr",
    ),
    "flag without section": (lambda c: [*c.flags(), "--group_size", "4"], "did you mean rollout.group_size?"),
    "flag without value": (lambda c: [*c.flags(), "--learner.lr"], "--learner.lr: expected one argument"),
    "value without flag": (lambda c: ["train", "fast"], "'fast': stands alone; give settings as --name value"),
    "text for a number": (lambda c: c.flags(learner__lr="fast"), "learner.lr: 'fast' is refused"),
    "fraction for a count": (lambda c: c.flags(learner__steps="1.5"), "learner.steps: '1.5' is refused"),
    "negative count": (lambda c: c.flags(learner__steps=-1), "learner.steps: '-1' is refused"),
    "not a number": (lambda c: c.flags(learner__lr="nan"), "learner.lr: 'nan' is refused"),
    "infinite": (lambda c: c.flags(rollout__temperature="inf"), "rollout.temperature: 'inf' is refused"),
    "zero temperature": (lambda c: c.flags(rollout__temperature=0), "rollout.temperature: '0' is refused"),
    "top_p above one": (lambda c: c.flags(rollout__top_p=1.1), "rollout.top_p: '1.1' is refused"),
    "switch without effect": (
        lambda c: c.flags(learner__loss="reinforce", learner__eps_high=0.3),
        "learner.eps_high: 0.3 has no effect with learner.importance none; set it to null, or change that",
    ),
    "replacement of groups that teach": (
        lambda c: c.flags(learner__loss="reinforce", rollout__dynamic_sampling=1),
        "rollout.dynamic_sampling: learner.loss reinforce and learner.baseline none learn from groups of equal rewards too",
    ),
    "buffer longer than responses": (
        lambda c: c.flags(learner__overlong_buffer=32),
        "learner.overlong_buffer: 32 tokens must be fewer than rollout.max_new_tokens",
    ),
    "score of passages": (
        lambda c: [*c.flags(), "--gold_score_mode", "ppmean"],
        "gold_score_mode: 'ppmean' is no reward of responses; give f1rougebleudist or bleudist",
    ),
    "seed's flag with a bad value": (
        lambda c: [*c.flags(), "--grpo_top_k_ratio", "2"],
        "learner.top_k_ratio: '2' is refused",
    ),
    "unknown choice": (lambda c: c.flags(learner__loss="ppo"), "learner.loss: 'ppo' is refused"),
    "half precision": (lambda c: c.flags(policy__dtype="float16"), "policy.dtype: 'float16' is refused"),
    "unknown query": (lambda c: c.flags(data__query="context"), "data.query: 'context' is refused"),
    "template without its text": (lambda c: c.flags(policy__passage_template="{query}"), "lacks {text}"),
    "template with an unknown name": (lambda c: c.flags(policy__prompt_template="{question} {x}"), "has {x}"),
    "template with an open brace": (lambda c: c.flags(policy__prompt_template="{question"), "is no template"),
    "group of one": (lambda c: c.flags(rollout__group_size=1), "rollout.group_size: 1 response a prompt has no group"),
    "more passages than the corpus": (lambda c: c.flags(policy__n_context=2), "policy.n_context: 2 passages are asked for"),
    "no passages at all": (lambda c: c.flags(data__passages=None), "data.passages: is missing, and example 'line-1'"),
    "passages without examples": (
        lambda c: c.flags(data__train=None),
        "passages.jsonl has no effect with data.train null; set it to null, or change that",
    ),
    "passages and a server of passages": (
        lambda c: c.flags(retriever__url="http://host"),
        "passages.jsonl has no effect with retriever.url; set it to null, or change that",
    ),
    "a server of passages without examples": (
        lambda c: c.flags(data__train=None, data__passages=None, retriever__url="http://host"),
        "retriever.url: http://host/retrieve has no effect with data.train null; set it to null, or change that",
    ),
    "a mode of search and a server": (
        lambda c: c.flags(data__passages=None, retriever__url="http://host", retriever__mode="lexical"),
        "retriever.mode: lexical has no effect with retriever.url; set it to null, or change that",
    ),
    "a deadline of no server": (
        lambda c: c.flags(retriever__url_deadline_s=3),
        "retriever.url_deadline_s: 3.0 has no effect with retriever.url null; set it to 30.0, or change that",
    ),
    "a server that is not there": (
        lambda c: c.flags(data__passages=None, retriever__url="http://127.0.0.1:1"),
        "http://127.0.0.1:1/retrieve: gives no answer ([Errno 111] Connection refused); start the server, or correct",
    ),
    "reward that is no path": (lambda c: c.flags(reward__extra="[{function: length}]"), "must look like module:function"),
    "reward module that is missing": (lambda c: c.flags(reward__extra="[{function: 'nowhere:f'}]"), "nowhere"),
    "reward without brackets": (
        lambda c: c.flags(reward__extra="{function: 'math:sqrt'}"),
        "reward.extra: {'function': 'math:sqrt'} is refused: give a list, in brackets",
    ),
    "reward without a dash": (
        lambda c: yaml(c, "reward:\n  extra:\n    function: math:sqrt\n"),
        "reward.extra: {'function': 'math:sqrt'} is refused: give a list, in brackets",
    ),
    "reward that is a day": (lambda c: c.flags(reward__extra="[2024-13-45]"), "reward.extra: '[2024-13-45]' is not YAML"),
    "reward nested without end": (lambda c: c.flags(reward__extra="[" * 600), "is not YAML"),
    "reward that is no list": (lambda c: c.flags(reward__extra="{function"), "reward.extra: '{function' is not YAML"),
    "settings file missing": (lambda c: [*c.flags(), "--config", "none.yaml"], "none.yaml: no such settings file"),
    "settings file not YAML": (lambda c: yaml(c, "learner:\n  lr: [1\n"), "settings.yaml:3: is not YAML"),
    "settings file a list": (lambda c: yaml(c, "- 1\n"), "settings.yaml: holds list, not settings"),
    "settings file with a typo": (
        lambda c: yaml(c, "learner:\n  lrr: 1\n"),
        "learner.lrr: unknown setting; did you mean learner.lr?",
    ),
    "settings file with a wrong type": (lambda c: yaml(c, "learner:\n  lr: [1]\n"), "learner.lr: [1] is refused"),
    "settings file with a value for a section": (lambda c: yaml(c, "learner: 3\n"), "learner: unknown setting"),
    "settings file not text": (
        lambda c: [*c.flags(), "--config", str(c.file("s.yaml", b"\xff\xfe\x00"))],
        "cannot be read as text",
    ),
    "train file missing": (lambda c: c.flags(data__train=c.folder / "no.jsonl"), "no.jsonl: no such file"),
    "train file a folder": (
        lambda c: c.flags(data__train=c.jsonl("f/x.json").parent),
        "f: is a folder without .jsonl or .parquet files; name a file, or a folder of them",
    ),
    "passages among examples": (
        lambda c: c.flags(data__train=c.folder),
        "passages.jsonl:1: lacks the key 'question'; it looks like one of passages, which belong into data.passages",
    ),
    "train file empty": (lambda c: c.flags(data__train=c.file("e.jsonl", "")), "e.jsonl: holds no example"),
    "train file of another kind": (lambda c: c.flags(data__train=c.file("t.csv", "a,b\n")), "ends in '.csv'"),
    "line not JSON": (
        lambda c: c.flags(data__train=c.file("b.jsonl", json.dumps(GOOD) + "\n{oops\n")),
        "b.jsonl:2: is not JSON",
    ),
    "line a list": (lambda c: c.flags(data__train=c.file("b.jsonl", "[1]\n")), "b.jsonl:1: is no JSON object"),
    "key missing": (lambda c: c.flags(data__train=c.jsonl("b.jsonl", {"question": "a"})), "b.jsonl:1: lacks the key 'answers'"),
    "answers a text": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"answers": "x"})),
        "b.jsonl:1: 'answers' is 'x'",
    ),
    "answers empty": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"answers": []})),
        "b.jsonl:1: 'answers' is empty",
    ),
    "answer blank": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"answers": [" "]})),
        "b.jsonl:1: 'answers.0' is empty",
    ),
    "question a number": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"question": 3})),
        "b.jsonl:1: 'question' is 3",
    ),
    "id twice": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", *[GOOD | {"id": "x"}] * 2)),
        "b.jsonl:2: id 'x' stands on line 1",
    ),
    "not UTF-8": (
        lambda c: c.flags(data__train=c.file("b.jsonl", b'{"question": "\xe9"}\n')),
        "b.jsonl:1: byte 14 is not UTF-8",
    ),
    "parquet that is none": (lambda c: c.flags(data__train=c.file("b.parquet", "PAR1")), "b.parquet: is no parquet file"),
    "valid file broken": (lambda c: c.flags(data__valid=c.file("v.jsonl", "x\n")), "v.jsonl:1: is not JSON"),
    "passage without text": (
        lambda c: c.flags(data__passages=c.jsonl("p.jsonl", {"id": "1"})),
        "p.jsonl:1: lacks the key 'text'",
    ),
    "no passage": (lambda c: c.flags(data__passages=c.file("p.jsonl", "\n")), "p.jsonl: holds no passage"),
    "cache that is a file": (lambda c: c.flags(data__cache=c.train), "let data.cache name a folder"),
    "model folder missing": (lambda c: c.flags(policy__path=c.folder / "no"), "no: is no model folder or hub name"),
    "model folder without a model": (lambda c: c.flags(policy__path=c.folder), "is no model folder or hub name"),
    "model of another type": (
        lambda c: c.flags(policy__path=c.file("bert/config.json", '{"model_type": "bert"}').parent),
        "is of type 'bert'; give a T5 or a causal LM",
    ),
    "run folder taken": (lambda c: c.flags(run_dir=c.file("old/config.yaml", "").parent), "holds a run already; go on with"),
    "run folder not empty": (lambda c: c.flags(run_dir=c.file("x/notes.txt", "").parent), "is not empty; choose another"),
    "run folder a file": (lambda c: c.flags(run_dir=c.train), "holds a run already"),
    "resume of nothing": (lambda c: ["train", "--resume", str(c.folder)], "holds no run (no config.yaml)"),
    "resume of a run without data": (
        lambda c: ["train", "--resume", str(c.file("old/config.yaml", "seed: 1\n").parent)],
        "data.train: is missing",
    ),
    "settings file with a control character": (lambda c: yaml(c, "seed: 1\x00\n"), "is not YAML"),
    "settings file with an impossible date": (lambda c: yaml(c, "run_dir: 2024-99-99\n"), "is not YAML"),
    "CPUs in parts above one": (lambda c: c.flags(cluster__sampler_cpus=1.5), "above 1 it must be a whole number"),
    "demo with a model folder that is none": (
        lambda c: ["train", "--policy.path", str(c.folder), "--run_dir", str(c.run)],
        "is no model folder or hub name",
    ),
    "passages of stop words": (
        lambda c: c.flags(data__passages=c.jsonl("p.jsonl", PASSAGE | {"title": "", "text": "the"})),
        "no passage has a word to search for",
    ),
    "file name too long": (lambda c: c.flags(run_dir=c.folder / ("x" * 300)), "File name too long"),
    "evaluate with a setting of training": (
        lambda c: ["evaluate", "--checkpoint", "x", "--data", "y", "--learner.lr", "1"],
        "--learner.lr: unknown setting",
    ),
    "evaluate without data": (lambda c: ["evaluate", "--checkpoint", str(c.folder)], "data: is missing; give it"),
    "evaluate of nothing": (
        lambda c: ["evaluate", "--checkpoint", "no", "--data", str(c.train)],
        "no: no such checkpoint; give a run folder",
    ),
    "evaluate of a folder without a model": (
        lambda c: ["evaluate", "--checkpoint", str(c.folder), "--data", str(c.train), "--policy.n_context", "0"],
        "is no model folder or hub name",
    ),
    "evaluate into a folder that is missing": (
        lambda c: ["evaluate", "--checkpoint", "no", "--data", str(c.train), "--output", "no/out.json"],
        "no/out.json: cannot be written",
    ),
    "convert of nothing": (lambda c: ["convert", "--input", "no.txt", "--output", str(c.folder / "o")], "no.txt: no such file"),
    "convert of another text": (
        lambda c: ["convert", "--input", str(c.file("d.txt", "hello\n")), "--output", str(c.folder / "o")],
        "d.txt: is of no known format; say which it is with --from: parlai, ",
    ),
    "convert from an unknown format": (
        lambda c: ["convert", "--from", "fit", "--input", str(c.train), "--output", str(c.folder / "o")],
        "from: 'fit' is refused: is no format; give auto, parlai, ",
    ),
    "convert of turns without turns": (
        lambda c: ["convert", "--from", "fid", "--history", "2", "--input", str(c.train), "--output", str(c.folder / "o")],
        "history: fid has no turns; leave it out",
    ),
    "line nested without end": (lambda c: c.flags(data__train=c.file("b.jsonl", "[" * 100_000)), "b.jsonl:1: is not JSON"),
    "line of an endless number": (
        lambda c: c.flags(data__train=c.file("b.jsonl", '{"question": ' + "9" * 5000 + "}\n")),
        "b.jsonl:1: ",
    ),
    "huge line that is cut short": (
        lambda c: c.flags(data__train=c.file("b.jsonl", '{"question": "' + "x" * (8 << 20))),
        "b.jsonl:1: is not JSON",
    ),
    "huge answer that is no list": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"answers": "x" * (1 << 20)})),
        "b.jsonl:1: 'answers' is 'xxx",
    ),
    "half a character": (
        lambda c: c.flags(data__train=c.file("b.jsonl", '{"question": "\\ud800", "answers": ["a"]}\n')),
        "b.jsonl:1: is not JSON",
    ),
    "NaN for a question": (
        lambda c: c.flags(data__train=c.file("b.jsonl", '{"question": NaN, "answers": ["a"]}\n')),
        "b.jsonl:1: ",
    ),
    "UTF-16": (lambda c: c.flags(data__train=c.file("b.jsonl", json.dumps(GOOD).encode("utf-16"))), "save the file as UTF-8"),
    "question blank": (lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"question": " "})), "'question' is empty"),
    "question null": (lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"question": None})), "lacks the key 'question'"),
    "id a fraction": (lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"id": 7.5})), "b.jsonl:1: 'id' is 7.5"),
    "id blank": (lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"id": " "})), "b.jsonl:1: 'id' is empty"),
    "id that a line without one has": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"id": "line-2"}, GOOD)),
        "b.jsonl:2: id 'line-2' stands on line 1",
    ),
    "answers of another type": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"answers": [1]})),
        "b.jsonl:1: 'answers.0' is 1",
    ),
    "gold a text": (lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"gold": "p"})), "b.jsonl:1: 'gold' is 'p'"),
    "own passages a text": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"passages": "p"})),
        "b.jsonl:1: 'passages' is 'p'",
    ),
    "own passage without text": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", GOOD | {"passages": [{"id": "p"}]})),
        "b.jsonl:1: lacks the key 'passages.0.text'",
    ),
    "train file a named pipe": (lambda c: c.flags(data__train=c.pipe("b.jsonl")), "b.jsonl: no such file"),
    "train file a link to itself": (lambda c: c.flags(data__train=c.link("b.jsonl", "b.jsonl")), "b.jsonl: no such file"),
    "train file in the home of nobody": (lambda c: c.flags(data__train="~nobody-at-all/x.jsonl"), "x.jsonl: no such file"),
    "train file cut short": (
        lambda c: c.flags(data__train=c.file("b.jsonl.gz", b"\x1f\x8b")),
        "b.jsonl.gz: cannot be read to its end (",
    ),
    "train file an array": (
        lambda c: c.flags(data__train=c.file("b.json", "[]")),
        "b.json: ends in '.json'; give a .jsonl, .jsonl.gz, .jsonl.zst or .parquet file, or make one of it: "
        "python launch.py convert --from auto --input ",
    ),
    "train file of another project": (
        lambda c: c.flags(data__train=c.jsonl("b.jsonl", {"question": "a", "golden_answers": ["b"]})),
        "b.jsonl:1: lacks the key 'answers'; it looks like flashrag: python launch.py convert --from flashrag --input ",
    ),
    "train file twice": (lambda c: [*c.flags(), "--data.train", *[str(c.train)] * 2], "train.jsonl: is named twice"),
    "several train files, one missing": (
        lambda c: [*c.flags(), "--data.train", str(c.train), "no.jsonl"],
        "no.jsonl: no such file",
    ),
    "passages of another project": (
        lambda c: c.flags(data__passages=c.jsonl("p.jsonl", {"id": 1, "contents": "a"})),
        "p.jsonl:1: lacks the key 'text'; it looks like contents: python launch.py convert --from contents --input ",
    ),
    "no train files": (lambda c: yaml(c, "data: {valid: []}"), "data.valid: [] is refused: names no path; give one"),
    "train file a number": (lambda c: yaml(c, "data: {valid: [3]}"), "data.valid: [3] is refused: names no path; give one"),
    "two held-out sets of one name": (
        lambda c: [*c.flags(), "--data.valid", "a/dev.jsonl", "b/dev.jsonl.gz"],
        "'b/dev.jsonl.gz'] is refused: has two sets called dev; give {name: path}",
    ),
    "a held-out set without a name": (
        lambda c: [*c.flags(), "--data.valid", "{'': a.jsonl}"],
        "data.valid: {'': 'a.jsonl'} is refused: names each set of files by letters, digits and . _ -; give {name: path}",
    ),
    "a held-out set without files": (
        lambda c: [*c.flags(), "--data.valid", "{dev: []}"],
        "data.valid: [] is refused: names no path; give one",
    ),
    "held-out sets that are not YAML": (
        lambda c: [*c.flags(), "--data.valid", "{dev: a.jsonl"],
        "data.valid: '{dev: a.jsonl' is not YAML; give a mapping such as {name: value}",
    ),
    "one of two held-out sets is missing": (
        lambda c: [*c.flags(), "--data.valid", f"{{dev: {c.train}, test: no.jsonl}}"],
        "no.jsonl: no such file",
    ),
    "a temperature of no draws": (
        lambda c: c.flags(eval_temperature=0.5),
        "eval_temperature: 0.5 has no effect with eval_samples 0; set it to 1.0, or change that",
    ),
    "draws without evaluations": (
        lambda c: [*c.flags(), "--data.valid", "null", "--eval_samples", "4"],
        "eval_samples: 4 has no effect with data.valid null; set it to 0, or change that",
    ),
    "train file without a name": (lambda c: c.flags(data__train=""), "data.train: '' is refused: names no path"),
    "parquet without a column": (
        lambda c: c.flags(data__train=c.parquet("b.parquet", question=["a"])),
        "lacks the key 'answers'",
    ),
    "parquet with a column of another type": (
        lambda c: c.flags(data__train=c.parquet("b.parquet", question=["a"], answers=["b"])),
        "b.parquet:1: 'answers' is 'b'",
    ),
    "parquet with a null": (
        lambda c: c.flags(data__train=c.parquet("b.parquet", question=["a", None], answers=[["b"], ["c"]])),
        "b.parquet:2: lacks the key 'question'",
    ),
    "parquet without rows": (
        lambda c: c.flags(data__train=c.parquet("b.parquet", question=[], answers=[])),
        "b.parquet: holds no example",
    ),
    "parquet cut short": (lambda c: c.flags(data__train=c.cut(c.parquet("b.parquet", question=["a"]))), "is no parquet file"),
    "parquet passages without text": (
        lambda c: c.flags(data__passages=c.parquet("p.parquet", id=["1"])),
        "lacks the key 'text'",
    ),
    "passages that are gone": (lambda c: c.flags(data__passages=c.folder / "no.jsonl"), "no.jsonl: no such file"),
    "passage blank": (
        lambda c: c.flags(data__passages=c.jsonl("p.jsonl", PASSAGE | {"text": ""})),
        "p.jsonl:1: 'text' is empty",
    ),
    "valid file missing": (lambda c: c.flags(data__valid=c.folder / "v.jsonl"), "v.jsonl: no such file"),
    "valid file empty": (lambda c: c.flags(data__valid=c.file("v.jsonl", "")), "v.jsonl: holds no example"),
    "seed below zero": (lambda c: c.flags(seed=-1), "seed: '-1' is refused"),
    "seed beyond 64 bits": (lambda c: c.flags(seed=1 << 70), "seed: "),
    "no responses": (lambda c: c.flags(rollout__group_size=0), "rollout.group_size: '0' is refused"),
    "no prompts": (lambda c: c.flags(rollout__prompts_per_step=0), "rollout.prompts_per_step: '0' is refused"),
    "no tokens": (lambda c: c.flags(rollout__max_new_tokens=0), "rollout.max_new_tokens: '0' is refused"),
    "empty batches": (lambda c: c.flags(supervised__batch_size=0), "supervised.batch_size: '0' is refused"),
    "negative rate": (lambda c: c.flags(learner__lr=-1e-5), "learner.lr: '-1e-05' is refused"),
    "no reward": (
        lambda c: c.flags(reward__f1=0, reward__rouge=0, reward__bleu=0),
        "reward.f1: 0 like all weights, so no response is better than another; raise f1, rouge, bleu or extra",
    ),
    "negative reward weight": (lambda c: c.flags(reward__f1="-inf"), "reward.f1: '-inf' is refused"),
    "top_p of nothing": (lambda c: c.flags(rollout__top_p=0), "rollout.top_p: '0' is refused"),
    "clip beyond one": (lambda c: c.flags(learner__eps_low=1.5), "learner.eps_low: '1.5' is refused"),
    "heads that do not exist": (lambda c: c.flags(policy__tiny__heads=0), "policy.tiny.heads: '0' is refused"),
    "vocabulary too small": (lambda c: c.flags(policy__tiny__vocab_size=3), "policy.tiny.vocab_size: "),
    "no steps at all": (
        lambda c: c.flags(learner__steps=0, supervised__steps=0),
        "learner.steps: 0 leaves nothing to train",
    ),
    "no samplers": (lambda c: c.flags(cluster__samplers=0), "cluster.samplers: "),
    "samplers in words": (lambda c: c.flags(cluster__samplers="many"), "cluster.samplers: "),
    "bounds that cross": (
        lambda c: c.flags(cluster__samplers="auto", cluster__min_samplers=4, cluster__max_samplers=2),
        "max_samplers 2 is below min_samplers 4",
    ),
    "bounds of a fixed number": (
        lambda c: c.flags(cluster__max_samplers=4),
        "cluster.max_samplers: 4 has no effect with a number of cluster.samplers; set it to null, or change that",
    ),
    "patience without evaluations": (
        lambda c: [*c.flags(), "--data.valid", "null", "--patience", "3"],
        "patience: 3 has no effect with data.valid null; set it to 0, or change that",
    ),
    "evaluation over its own examples": (
        lambda c: ["evaluate", "--checkpoint", str(c.folder), "--data", str(c.train), "--predictions", str(c.train)],
        "train.jsonl: stands for another file of this command; name one of its own",
    ),
    "conversion over its own text": (
        lambda c: ["convert", "--input", str(c.train), "--output", str(c.train)],
        "train.jsonl: stands for another file of this command; name one of its own",
    ),
    "report over data": (
        lambda c: ["report", str(c.folder), "--output", str(c.train)],
        "train.jsonl is there and ends in '.jsonl'; name a .html file",
    ),
    "report to nowhere": (lambda c: ["report", str(c.folder), "--output", ""], "output: '' is refused: names no path"),
    "patience without a second stage": (
        lambda c: c.flags(data__valid=c.train, learner__steps=0, patience=3),
        "patience: 3 has no effect with learner.steps 0; leave it out, or change that",
    ),
    "a rate of a first stage that there is not": (
        lambda c: c.flags(policy__path="t5", supervised__steps=None, supervised__lr=1e-4),
        "supervised.lr: 0.0001 has no effect with policy.path and no supervised.steps; set it to 0.001, or change that",
    ),
    "a temperature where nothing is drawn": (
        lambda c: c.flags(learner__loss="sft", rollout__temperature=0.7),
        "rollout.temperature: 0.7 has no effect with learner.loss sft; set it to 1.0, or change that",
    ),
    "staleness where nothing is drawn": (
        lambda c: c.flags(learner__loss="sft", cluster__max_staleness=1),
        "cluster.max_staleness: 1 has no effect with learner.loss sft; set it to 0, or change that",
    ),
    "a group where nothing is drawn": (
        lambda c: c.flags(learner__loss="sft", rollout__group_size=4),
        "rollout.group_size: 4 has no effect with learner.loss sft; set it to 8, or change that",
    ),
    "a small model beside a pretrained one": (
        lambda c: c.flags(policy__path="t5", policy__tiny__d_model=64),
        "policy.tiny.d_model: 64 has no effect with policy.path; set it to 128, or change that",
    ),
    "a cut of passages that are not read": (
        lambda c: c.flags(policy__n_context=0, policy__max_passage_tokens=64),
        "policy.max_passage_tokens: 64 has no effect with policy.n_context 0; set it to 128, or change that",
    ),
    "evaluations of nothing": (
        lambda c: [*c.flags(), "--data.valid", "null", "--eval_every", "50"],
        "eval_every: 50 has no effect with data.valid null; set it to 200, or change that",
    ),
    "label without a value": (lambda c: c.flags(cluster__sampler_label="gpu"), "cluster.sampler_label: 'gpu' is refused"),
    "deadline of nothing": (lambda c: c.flags(cluster__call_deadline_s=0), "cluster.call_deadline_s: '0' is refused"),
    "endless deadline": (lambda c: c.flags(cluster__start_deadline_s="inf"), "cluster.start_deadline_s: 'inf' is refused"),
    "negative threads": (lambda c: c.flags(cluster__threads=-1), "cluster.threads: '-1' is refused"),
    "port beyond the last": (lambda c: c.flags(cluster__dashboard_port=70_000), "cluster.dashboard_port: '70000' is refused"),
    "staleness below zero": (lambda c: c.flags(cluster__max_staleness=-1), "cluster.max_staleness: '-1' is refused"),
    "no checkpoint kept": (lambda c: c.flags(keep_checkpoints=0), "keep_checkpoints: '0' is refused"),
    "settings file that makes objects": (
        lambda c: yaml(c, "seed: !!python/object/apply:os.system ['touch here']\n"),
        "settings.yaml:1: is not YAML (could not determine a constructor",
    ),
    "settings file with a name twice": (
        lambda c: yaml(c, "seed: 1\nseed: 2\n"),
        "settings.yaml:2: is not YAML ('seed' stands twice)",
    ),
    "settings file with a placeholder": (
        lambda c: yaml(c, "run_dir: {{ name }}\n"),
        "settings.yaml:1: is not YAML (found unhashable key)",
    ),
    "settings file with a number for a name": (lambda c: yaml(c, "1: 2\n"), "settings.yaml: 1: unknown setting"),
    "settings file nested without end": (lambda c: yaml(c, "[" * 600), "is not YAML"),
    "settings file a folder": (lambda c: [*c.flags(), "--config", str(c.folder)], "cannot be read as text"),
    "reward that is no function": (lambda c: c.flags(reward__extra="[{function: 'math:pi'}]"), "'math:pi' is a float"),
    "reward whose module raises": (lambda c: c.flags(reward__extra="[{function: 'antigravity.x:y'}]"), "cannot import"),
    "reward twice": (
        lambda c: c.flags(reward__extra="[{function: 'math:sqrt'}, {function: 'math:sqrt'}]"),
        "two functions are logged as",
    ),
    "reward with weight of no number": (
        lambda c: c.flags(reward__extra="[{function: 'math:sqrt', weight: nan}]"),
        "reward.extra.0.weight: 'nan' is refused",
    ),
    "model folder whose config is no JSON": (
        lambda c: c.flags(policy__path=c.file("m/config.json", "{").parent),
        "is not a valid JSON file",
    ),
    "model folder whose config names no type": (
        lambda c: c.flags(policy__path=c.file("m/config.json", "{}").parent),
        "Unrecognized model",
    ),
    "model folder a file": (lambda c: c.flags(policy__path=c.train), "is no model folder or hub name"),
    "reference missing": (lambda c: c.flags(learner__reference_path=c.folder / "no"), "no: is no model folder or hub name"),
    "run folder below a file": (lambda c: c.flags(run_dir=c.train / "run"), "train.jsonl is no folder of yours"),
    "resume of settings that are none": (
        lambda c: ["train", "--resume", str(c.file("old/config.yaml", "seed: {\n").parent)],
        "config.yaml:2: is not YAML",
    ),
    "resume of settings of another version": (
        lambda c: ["train", "--resume", str(c.file("old/config.yaml", "sede: 1\n").parent)],
        "config.yaml: sede: unknown setting; did you mean seed?",
    ),
    "resume of a file": (lambda c: ["train", "--resume", str(c.train)], "holds no run (no config.yaml)"),
    "evaluate into a folder": (
        lambda c: ["evaluate", "--checkpoint", "no", "--data", str(c.train), "--output", str(c.folder)],
        "cannot be written; name a file",
    ),
    "convert into a missing folder": (
        lambda c: ["convert", "--input", str(c.train), "--output", str(c.folder / "no" / "o.jsonl")],
        "o.jsonl: cannot be written",
    ),
    "convert of an empty file": (
        lambda c: ["convert", "--input", str(c.file("d.txt", "")), "--output", str(c.folder / "o")],
        "d.txt: holds nothing to convert; give a file with questions and answers, or with passages",
    ),
    "convert of a turn without a reply": (
        lambda c: ["convert", "--input", str(c.file("d.txt", "1 hello\n")), "--output", str(c.folder / "o")],
        "d.txt:1: 'hello' is no turn",
    ),
    "convert of bytes": (
        lambda c: ["convert", "--input", str(c.file("d.txt", b"1 \xff\t\n")), "--output", str(c.folder / "o")],
        "d.txt:1: byte 2 is not UTF-8",
    ),
    "convert onto a full disk": (
        lambda c: ["convert", "--input", str(c.file("d.txt", "1 hi\tho\n")), "--output", "/dev/full"],
        "/dev/full: cannot be written (No space left on device)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line_with_exit_code_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = Case(tmp_path)
    make, expected = CASES[name]
    arguments = make(case)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert expected in captured.err
    after = [path for path in sorted(tmp_path.rglob("*")) if "cache" not in path.parts and path.name != ".lock"]
    assert after == [path for path in before if "cache" not in path.parts]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nohost", "ray://127.0.0.1:10001"])
def test_an_address_where_no_ray_answers_is_one_line(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert main(Case(tmp_path).flags()) == 2
    assert capsys.readouterr().err.startswith(f"error: RAY_ADDRESS={address}: ")


def test_a_relative_run_folder_in_a_job_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert main(Case(tmp_path).flags(run_dir="runs/x")) == 2
    assert "give an absolute path that all nodes see" in capsys.readouterr().err


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run", symlinks=True)
    for weights in (run / "checkpoints").glob("step-*/policy/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-10])
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 2
    assert "step-8: policy/model.safetensors is missing or damaged" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train", "--resume"], ["train", "--dry-run", "--resume"], ["report"]])
def test_a_checkpoint_is_not_taken_for_a_run(
    command: list[str], finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = finished_run / "checkpoints" / "latest"
    before = sorted(checkpoint.rglob("*"))
    assert main([*command, str(checkpoint)]) == 2
    assert capsys.readouterr().err == f"error: {checkpoint}: is a checkpoint; give the folder of its run, {finished_run}\n"
    assert sorted(checkpoint.rglob("*")) == before


def test_a_resumed_run_keeps_its_data_and_policy(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["train", "--resume", str(finished_run), "--policy.n_context", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: policy: differs from the run's own")


def test_a_reward_that_returns_nan_is_named(
    ray_session: None, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--reward.extra", '[{function: "tests.cluster.own_reward:never_a_number"}]', "--supervised.steps", "0"]
    assert main(["train", *tiny_flags, *extra, "--run_dir", str(tmp_path / "run")]) == 2
    assert "tests.cluster.own_reward:never_a_number" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reward_that_hangs_ends_the_run_at_the_deadline(
    ray_session: None, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ["--reward.extra", '[{function: "tests.cluster.own_reward:that_hangs"}]', "--cluster.call_deadline_s", "6"]
    extra += ["--cluster.max_failed_prompts", "0"]
    assert main(["train", *tiny_flags, *extra, "--run_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cluster.max_failed_prompts: 1 prompts failed, 0 may; the first was 'valid-")
    assert "reward actor: one call lost its replica (no answer in 6 s); see their logs" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--cluster.sampler_resource", "fpga"], "fpga are wanted, the cluster has 0"),
        (["--cluster.sampler_label", "role=sampler"], "cluster.sampler_label: no node is labelled role=sampler"),
        (["--cluster.sampler_cpus", "1000"], "CPU are wanted, the cluster has 8"),
        (["--cluster.learner_gpus", "1"], "cluster: 1 GPU are wanted, the cluster has 0"),
    ],
)
def test_a_cluster_that_lacks_what_is_wanted_is_told_at_once(
    ray_session: None, flags: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*Case(tmp_path).flags(), *flags]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_file_on_a_full_disk_is_named() -> None:
    folder = RunFolder(Path("run"))
    with pytest.raises(CheckpointError, match="^/dev/full: cannot be written .No space left on device.; make room"):
        folder.append(Path("/dev/full"), {"step": 1})


async def test_a_checkpoint_without_room_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    config = tmp_path / "config.yaml"
    config.touch()

    async def room_for_this(folder: Path) -> None:
        (folder / "weights").write_text("1")

    async def no_room(folder: Path) -> None:
        with writing(folder):
            (folder / "weights").write_text("2")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    await checkpoints.save(RunState(step=1), [config], room_for_this)
    with pytest.raises(CheckpointError, match="No space left on device"):
        await checkpoints.save(RunState(step=2), [config], no_room)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "latest", "step-1"]
    found = newest(tmp_path, print)
    assert found is not None and found[1].step == 1


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(SettingsError, match="^run_dir: /proc/run cannot be made"):
        RunFolder.create(Path("/proc/run"))


def test_a_run_is_trained_by_one_process_at_a_time(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run", symlinks=True)
    capsys.readouterr()
    with RunFolder(run).locked():
        assert main(["train", "--resume", str(run)]) == 2
    assert capsys.readouterr().err == f"error: {run}: another process trains it; wait for its end, or stop it\n"


def test_a_run_that_began_in_the_folder_of_a_new_one_meanwhile_is_left_alone(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, create = tmp_path / "run", RunFolder.create

    def created_by_both(path: Path) -> RunFolder:
        (create(path).path / "config.yaml").write_text("seed: 7\n")
        return RunFolder(path)

    monkeypatch.setattr(RunFolder, "create", created_by_both)
    data = ("--data.train", str(data_dir / "train.jsonl"), "--policy.n_context", "0")
    assert main(["train", "--local", "--run_dir", str(run), *data]) == 2
    assert f"error: {run}: holds a run already; go on with --resume" in capsys.readouterr().err
    assert (run / "config.yaml").read_text() == "seed: 7\n"


def test_a_lock_of_a_folder_that_was_removed_meanwhile_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    flock = fcntl.flock
    monkeypatch.setattr("cluster.store.run_folder.fcntl.flock", lambda *of: (flock(*of), shutil.rmtree(tmp_path / "run")))
    with pytest.raises(CheckpointError, match="run: another process has just removed it; start again"):
        with RunFolder(tmp_path / "run").locked():
            pass


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own() -> None:
    names = {choose_run_dir(Settings(), "demo", in_job=False).name for _ in range(20)}
    assert len(names) == 20 and all(re.fullmatch(r"\d{8}-\d{6}-demo-[0-9a-f]{4}", name) for name in names)


def test_a_file_system_without_locks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("cluster.store.run_folder.fcntl.flock", no_locks)
    expected = f"^{tmp_path}: its file system has no locks (Function not implemented); mount it with them"
    with pytest.raises(CheckpointError, match=expected.replace("(", r"\(").replace(")", r"\)")), RunFolder(tmp_path).locked():
        pass


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{oops", ":1: is not JSON"),
        ('{"loss": 1}', ":1: names no step"),
        ('{"step": 3, "loss": "x"}', ": step 3: 'loss' is 'x', no number; correct the line or remove it"),
    ],
)
def test_metrics_that_no_run_wrote_are_named(
    line: str, expected: str, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run", symlinks=True)
    (run / "metrics.jsonl").write_text(line + "\n")
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 2
    assert f"error: {run}/metrics.jsonl{expected}" in capsys.readouterr().err


def test_what_raises_an_error_of_its_own_at_an_interrupt_is_no_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def importing(argv: Sequence[str]) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("could not import module") from error

    monkeypatch.setitem(COMMANDS, "train", importing)
    assert main(["train"]) == 130 and capsys.readouterr().err.startswith("interrupted; ")


def test_examples_that_are_both_trained_and_evaluated_on_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path)
    assert main([*case.flags(data__valid=case.train, supervised__steps=1, learner__steps=1), "--dry-run"]) == 0
    said = f"{case.train}: 2 of 2 examples stand in {case.train}, too; held-out figures will flatter"
    assert capsys.readouterr().out.count(said) == 1


def test_truncated_model_weights_leave_no_run_behind(
    ray_session: None, finished_run: Path, tiny_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(finished_run / "policy", tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert main(["train", *without_tiny(tiny_flags), "--policy.path", str(model), "--run_dir", str(tmp_path / "run")]) == 2
    assert "give a complete model folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--supervised.steps", "9"], "supervised: differs from the run's own"),
        (["--learner.steps", "0"], "learner.steps: is below what the run has done; give 4 or more"),
        (["--learner.steps", "3"], "learner.steps: is below what the run has done; give 4 or more"),
        (["--learner.reference_path", "POLICY"], "learner.reference_path: differs from the run's own"),
    ],
)
def test_a_resumed_run_keeps_its_stages(
    finished_run: Path, flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    flags = [str(finished_run / "policy") if flag == "POLICY" else flag for flag in flags]
    for dry in ([], ["--dry-run"]):
        assert main(["train", "--resume", str(finished_run), *flags, *dry]) == 2
        assert expected in capsys.readouterr().err


def test_half_a_line_that_a_full_disk_left_at_the_end_of_a_file_is_gone_after_a_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for file in (folder.metrics, folder.events):
        folder.append(file, {"step": 2})
        file.write_text(file.read_text() + '{"step": 3, "te')
    folder.truncate(1)
    for file in (folder.metrics, folder.events):
        folder.append(file, {"step": 4})
    assert folder.metric_rows() == [{"step": 4}] and folder.event_rows() == [{"step": 2}, {"step": 4}]


@pytest.mark.parametrize(("name", "saved"), [("train", True), ("valid", True), ("passages", True), ("train", False)])
def test_a_resumed_run_demands_its_files_as_they_were(
    name: str, saved: bool, finished_run: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run", symlinks=True)
    if not saved:
        shutil.rmtree(run / "checkpoints")
    shorter = tmp_path / f"{name}.jsonl"
    shorter.write_text("".join((data_dir / f"{name}.jsonl").read_text().splitlines(keepends=True)[:-1]))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(data_dir / f"{name}.jsonl"), str(shorter)))
    assert main(["train", "--resume", str(run)]) == 2
    assert f"{shorter}: is not what the run was begun with" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_keeps_its_policy_and_seed(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run", symlinks=True)
    shutil.rmtree(run / "checkpoints")
    assert main(["train", "--resume", str(run), "--seed", "3"]) == 2
    assert "seed: differs from the run's own" in capsys.readouterr().err
