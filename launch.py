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
from collections.abc import Sequence

from cluster.commands.chatting import chat
from cluster.commands.converting import convert
from cluster.commands.evaluating import evaluate
from cluster.commands.exporting import export
from cluster.commands.reporting import report
from cluster.commands.training import training
from cluster.terminal import nobody_reads_on
from cluster.trainer import Trainer
from rollout.errors import LapdogError, SettingsError


async def train(trainer: Trainer) -> None:
    """Supervised steps, then GRPO: the whole algorithm."""
    await trainer.start()
    for stage in trainer.stages():
        async with trainer.surviving_the_learner():
            await trainer.begin(stage)
            while trainer.goes_on(stage):
                batch = await trainer.batch()  # retrieve K passages, sample G responses, score them
                await trainer.update(batch)  # advantages, clipped ratio, KL to the reference, one step, fresh weights
    trainer.conclude()


def train_command(argv: Sequence[str]) -> None:
    """Supervised training, then GRPO; without data on the embedded demo."""
    with training(argv, train_command.__doc__) as trainer:
        asyncio.run(train(trainer))


COMMANDS = {
    "train": train_command,
    "evaluate": evaluate,
    "report": report,
    "chat": chat,
    "export": export,
    "convert": convert,
}


def main(argv: Sequence[str]) -> int:
    """Run one command; 0, or 2 after one line on stderr that names place, value and remedy."""
    if argv and argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    command, rest = ("train", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    try:
        if command not in COMMANDS:
            raise SettingsError(f"{command}: no such command; the commands are {', '.join(COMMANDS)}")
        COMMANDS[command](rest)
        sys.stdout.flush()
    except LapdogError as error:
        cause = getattr(error, "cause", error)  # Ray wraps what an actor raises in its traceback
        print(f"error: {' '.join(str(cause).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the newest checkpoint of the run, if there is one, is whole", file=sys.stderr)
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
