"""`convert`: files of other projects -> examples or passages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from cluster.output import print_out
from cluster.settings.flags import flags_of, parse_flags
from cluster.settings.values import build
from cluster.store.run_folder import check_writable
from rollout.config import Positive, Section
from rollout.data.convert.converter import convert_files
from rollout.data.convert.formats import AUTO, NAMES, PARLAI
from rollout.data.file_settings import Files
from rollout.data.files import data_files
from rollout.errors import SettingsError

SOURCES = (".jsonl", ".json", ".parquet", ".tsv", ".txt")


def _known(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"is no format; give {', '.join(NAMES)}")
    return name


class ConvertOptions(Section):
    input: Files = Field(description=f"files, patterns or folders: {', '.join(SOURCES)}, each as it is or as .gz or .zst")
    output: Path = Field(description="file to write: parquet if it ends in .parquet, packed if in .gz or .zst, else jsonl")
    source_format: Annotated[str, AfterValidator(_known)] = Field(
        AUTO, alias="from", description=f"format of the input: {', '.join(NAMES)}; auto: told by what the file holds"
    )
    history: Positive | None = Field(3, description="of dialogues: turns of context before a reply; null keeps all")


def convert(argv: Sequence[str]) -> None:
    """Dialogues, questions or passages as other projects write them -> examples or passages, and what was left out."""
    given = parse_flags("convert", convert.__doc__, argv, flags_of(ConvertOptions))
    options = build(ConvertOptions, given)
    if "history" in given and options.source_format not in (AUTO, PARLAI):
        raise SettingsError(f"history: {options.source_format} has no turns; leave it out")
    files = data_files(options.input, SOURCES)
    check_writable(options.output, files)
    account = convert_files(files, options.output, options.source_format, options.history)
    print_out(
        f"wrote {account.written} {account.kind} to {options.output}, read as {', '.join(dict.fromkeys(account.formats))}"
    )
    for line in account.lines():
        print_out(line)
