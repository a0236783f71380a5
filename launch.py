"""Train and evaluate retrieval-augmented generators with GRPO on Ray.

    python launch.py                                   train on the embedded demo
    python launch.py train --config FILE [--learner.lr 1e-5 ...]
    python launch.py train --resume RUN_DIR [--learner.steps 200 ...]
    python launch.py evaluate --checkpoint DIR --data FILE [--passages FILE] [--output FILE.json]
    python launch.py report RUN_DIR [RUN_DIR ...]
    python launch.py chat --checkpoint DIR [--passages FILE] [--persona TEXT]
    python launch.py export --checkpoint DIR --to DIR
    python launch.py convert --input FILE --output FILE.jsonl [--from FORMAT]
    python launch.py retrieve --passages FILE [--port 8000]

`python launch.py COMMAND --help` lists every setting.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from cluster.output import prepare_streams, print_err, print_out
from rollout.errors import LapdogError, SettingsError

if TYPE_CHECKING:
    from cluster.training.trainer import Trainer

Command = Callable[[Sequence[str]], None]


async def train(trainer: "Trainer") -> None:
    """Supervised steps, then GRPO."""
    await trainer.start()
    for stage in trainer.stages():
        async with trainer.restart_learner_on_loss():
            await trainer.begin(stage)
            while trainer.has_steps(stage):
                if batch := await trainer.batch():  # retrieve K passages, sample G responses, score them
                    await trainer.update(batch)  # advantages, clipped ratio, KL to the reference, one step, fresh weights
                await trainer.evaluate_if_due()  # greedy replies to held-out prompts
                await trainer.save_if_due()
    await trainer.finish()


def train_command(argv: Sequence[str]) -> None:
    """Supervised training, then GRPO; without data on the embedded demo."""
    from cluster.commands.train import planned, train_request, training

    request = train_request(argv, train_command.__doc__)
    if request.options.dry_run:
        print_out(planned(request))
        return
    with training(request) as trainer:
        asyncio.run(trainer.grace.bound(train(trainer)))
        if trainer.run_log.output_lost is not None:
            raise trainer.run_log.output_lost


def evaluate_command(argv: Sequence[str]) -> None:
    from cluster.commands.evaluate import evaluate

    evaluate(argv)


def report_command(argv: Sequence[str]) -> None:
    from cluster.commands.report import report

    report(argv)


def chat_command(argv: Sequence[str]) -> None:
    from cluster.commands.chat import chat

    chat(argv)


def export_command(argv: Sequence[str]) -> None:
    from cluster.commands.export import export

    export(argv)


def convert_command(argv: Sequence[str]) -> None:
    from cluster.commands.convert import convert

    convert(argv)


def retrieve_command(argv: Sequence[str]) -> None:
    from cluster.commands.retrieve import retrieve

    retrieve(argv)


COMMANDS: dict[str, Command] = {  # each imports PyTorch and Ray when it is called: a help text is there at once
    "train": train_command,
    "evaluate": evaluate_command,
    "report": report_command,
    "chat": chat_command,
    "export": export_command,
    "convert": convert_command,
    "retrieve": retrieve_command,
}


def command_named(name: str) -> Command:
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        meant = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise SettingsError(f"{name}: no such command; {meant}")
    return COMMANDS[name]


def main(argv: Sequence[str]) -> int:
    """Run one command; 0, or 2 after one line on stderr that names place, value and remedy."""
    prepare_streams()
    command, rest = ("train", argv) if not argv or argv[0].startswith("-") else (argv[0], argv[1:])
    try:
        if argv and argv[0] in ("-h", "--help"):
            print_out(__doc__)
        else:
            command_named(command)(rest)
    except LapdogError as error:
        cause = getattr(error, "cause", error)  # Ray wraps what an actor raises in its traceback
        print_err(f"error: {' '.join(str(cause).split())}")
        return 2
    except KeyboardInterrupt:
        return end_interrupted(command)
    except OSError as error:
        if error.filename is None:
            raise
        if isinstance(error, BrokenPipeError):  # as behind `| head`
            return 141
        print_err(f"error: {error.filename}: {error.strerror}; check the path, its rights and the disk")
        return 2
    except ImportError as error:
        if not came_from_an_interrupt(error):
            raise
        return end_interrupted(command)
    return 0


def end_interrupted(command: str) -> int:
    whole = "; the newest checkpoint of the run, if there is one, is whole" if command == "train" else ""
    print_err(f"interrupted{whole}")
    return 130


def came_from_an_interrupt(error: BaseException | None) -> bool:
    """Transformers' lazy imports raise their own error for whatever they met."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
