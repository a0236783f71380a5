"""`convert`: ConvAI2 / ParlAI text -> examples."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from cluster.output import print_out
from cluster.settings.flags import flags_of, parse_flags
from cluster.settings.values import build
from cluster.store.run_folder import check_writable
from rollout.config import Positive, Section
from rollout.data.convert import convert_parlai


class ConvertOptions(Section):
    input: Path = Field(description="ConvAI2 or ParlAI text: 'your persona:' lines and tab-separated turns")
    output: Path = Field(description="jsonl file to write")
    history: Positive | None = Field(3, description="turns of context before a reply; null keeps all")


def convert(argv: Sequence[str]) -> None:
    """ConvAI2 / ParlAI text -> examples, one for every reply of the agent, with both speakers' turns."""
    options = build(ConvertOptions, parse_flags("convert", convert.__doc__, argv, flags_of(ConvertOptions)))
    check_writable(options.output, [options.input])
    count = convert_parlai(options.input, options.output, options.history)
    print_out(f"wrote {count} examples to {options.output}")
