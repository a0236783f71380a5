"""Train and evaluate retrieval-augmented generators with GRPO on Ray.

    python launch.py                                   train on the embedded demo
    python launch.py train --config FILE [--learner.lr 1e-5 ...]
    python launch.py train --resume RUN_DIR [--learner.steps 200 ...]
    python launch.py evaluate --checkpoint DIR --data FILE [--passages FILE] [--output FILE.json]
    python launch.py report RUN_DIR [RUN_DIR ...]
    python launch.py chat --checkpoint DIR [--passages FILE] [--persona TEXT]
    python launch.py export --checkpoint DIR --to DIR
    python launch.py convert --input FILE --output FILE.jsonl

`python launch.py COMMAND --help` lists every setting.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from cluster.terminal import nobody_reads_on
from rollout.errors import LapdogError, SettingsError

if TYPE_CHECKING:  # PyTorch and Ray are imported by what needs them: a help text is there at once
    from cluster.trainer import Trainer

COMMANDS = {
    "train": "",  # below
    "evaluate": "cluster.commands.evaluating.evaluate",
    "report": "cluster.commands.reporting.report",
    "chat": "cluster.commands.chatting.chat",
    "export": "cluster.commands.exporting.export",
    "convert": "cluster.commands.converting.convert",
}


async def train(trainer: "Trainer") -> None:
    """Supervised steps, then GRPO: the whole algorithm."""
    await trainer.start()
    for stage in trainer.stages():
        async with trainer.surviving_the_learner():
            await trainer.begin(stage)
            while trainer.goes_on(stage):
                batch = await trainer.batch()  # retrieve K passages, sample G responses, score them
                await trainer.update(batch)  # advantages, clipped ratio, KL to the reference, one step, fresh weights
    await trainer.conclude()


def train_command(argv: Sequence[str]) -> None:
    """Supervised training, then GRPO; without data on the embedded demo."""
    from cluster.commands.training import planned, train_request, training

    request = train_request(argv, train_command.__doc__)
    if request.options.dry_run:
        print(planned(request))
        return
    with training(request) as trainer:
        asyncio.run(train(trainer))
        if trainer.chronicle.unread:
            raise BrokenPipeError


def command_named(name: str) -> Callable[[Sequence[str]], None]:
    if name not in COMMANDS:
        raise SettingsError(f"{name}: no such command; the commands are {', '.join(COMMANDS)}")
    if name == "train":
        return train_command
    module, _, function = COMMANDS[name].rpartition(".")
    command: Callable[[Sequence[str]], None] = getattr(import_module(module), function)
    return command


def main(argv: Sequence[str]) -> int:
    """Run one command; 0, or 2 after one line on stderr that names place, value and remedy."""
    if argv and argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    command, rest = ("train", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    try:
        command_named(command)(rest)
        sys.stdout.flush()
    except LapdogError as error:
        cause = getattr(error, "cause", error)  # Ray wraps what an actor raises in its traceback
        print(f"error: {' '.join(str(cause).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        whole = "; the newest checkpoint of the run, if there is one, is whole" if command == "train" else ""
        print(f"interrupted{whole}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not nobody_reads_on():
            raise
        return 141
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; check the path, its rights and the disk", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
