"""Files of other projects -> ours, with an account of what was left out on the way."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from rollout.data.convert.formats import AUTO, DETECTING, NAMES, PARLAI, Format, format_named, format_of
from rollout.data.convert.output import write_rows
from rollout.data.convert.parlai import dialogue_examples, is_parlai
from rollout.data.convert.record import Kind, Row
from rollout.data.convert.records import (
    NUMBERED,
    is_json,
    is_parquet,
    is_table,
    json_records,
    opening_of,
    peek,
)
from rollout.data.convert.table import table_records
from rollout.data.files import shown
from rollout.data.parquet import Fields, fields_of, parquet_rows, unread_columns
from rollout.data.problems import first_problem
from rollout.errors import DataError

SHOWN = 8
GIVE = "give a file with questions and answers, or with passages"
NO_TURN = "holds no dialogue turn; give ParlAI text with tab-separated turns"


@dataclass
class Account:
    """formats: as which the files were read. noted: count and first place of what was left out or changed, by the reason;
    unread: number of rows by key."""

    formats: list[str] = field(default_factory=list)
    kind: Kind = "examples"
    written: int = 0
    noted: dict[str, tuple[int, str]] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, kind: Kind, source: Path) -> None:
        """Raise DataError for passages among examples."""
        if self.formats and kind != self.kind:
            raise DataError(f"{source}: holds {kind}, the files before {self.kind}; convert them one by one")
        self.formats.append(name)
        self.kind = kind

    def note(self, reason: str, place: str) -> None:
        count, first = self.noted.get(reason, (0, place))
        self.noted[reason] = count + 1, first

    def lines(self) -> Iterator[str]:
        """What a user is told of the rows and keys that are not in the result."""
        for reason, (count, first) in self.noted.items():
            yield f"{reason}: {count:,}, the first {first}"
        if self.unread:
            most = [f"{name} ({count:,})" for name, count in self.unread.most_common(SHOWN)]
            more = f" and {len(self.unread) - SHOWN} more" if len(self.unread) > SHOWN else ""
            yield f"not kept: {', '.join(most)}{more}"


def convert_files(sources: Sequence[Path], target: Path, name: str = AUTO, history: int | None = None) -> Account:
    """Write examples, or passages, of all sources to one file. name: of the format; `auto` finds it by each file's first row.

    Raises DataError naming file and line of what cannot be read, and for sources of which nothing remains.
    """
    account = Account()
    account.written = write_rows(target, _ours(_found(sources, name, history, account), account))
    if not account.written:
        if account.formats == [PARLAI] and not account.noted:
            raise DataError(f"{shown(sources)}: {NO_TURN}")
        raise DataError(f"{shown(sources)}: holds nothing to convert{''.join(f'; {line}' for line in account.lines())}; {GIVE}")
    return account


def _found(sources: Sequence[Path], name: str, history: int | None, account: Account) -> Iterator[tuple[str, Row]]:
    """(place, row as its format gives it) of all files."""
    for source in sources:
        opening = "" if is_parquet(source) else opening_of(source)
        if is_parquet(source) or (name != PARLAI and (is_json(opening) or is_table(opening) or name != AUTO)):
            yield from _of_records(source, opening, name, account)
        elif opening and name == AUTO and not is_parlai(opening):
            raise DataError(_unknown(source, []))
        elif opening:
            account.add(PARLAI, "examples", source)
            yield from ((f"{source}:{line}", row) for line, row in dialogue_examples(source, history, account.unread))


def _of_records(source: Path, opening: str, name: str, account: Account) -> Iterator[tuple[str, Row]]:
    first, records = peek(_records(source, opening, DETECTING, account))
    if first is None:
        return
    if not isinstance(first, dict):
        raise DataError.at(source, 1, f"is {first!r:.60}, no JSON object; put keys and values in braces")
    found = format_named(name, first) if name != AUTO else format_of(first)
    if found is None:
        raise DataError(_unknown(source, list(first)))
    account.add(found.name, found.record.kind, source)
    if is_parquet(source):
        fields = fields_of(found.record)
        records = _records(source, opening, fields, account)
        account.unread.update(unread_columns(source, fields))
    yield from _read(source, records, found, account)


def _records(source: Path, opening: str, fields: Fields, account: Account) -> NUMBERED:
    if is_parquet(source):
        return enumerate(parquet_rows(source, fields), 1)
    return json_records(source) if is_json(opening) else table_records(source, account.note)


def _read(source: Path, records: NUMBERED, found: Format, account: Account) -> Iterator[tuple[str, Row]]:
    for number, value in records:
        try:
            record = found.record.model_validate(value)
        except ValidationError as error:
            raise DataError.at(source, number, f"as {found.name}: {first_problem(error, found.record)}") from error
        account.unread.update(record.unread())
        yield from ((f"{source}:{number}", row) for row in record.rows())


def _ours(found: Iterator[tuple[str, Row]], account: Account) -> Iterator[Row]:
    """Those that are complete."""
    ids: Counter[str] = Counter()
    for place, row in found:
        is_example = account.kind == "examples"
        ours = _example(row, place, account) if is_example else _passage(row, place, account)
        if ours is None:
            continue
        if is_example and (id := ours.get("id")):
            ids[id] += 1
            if ids[id] > 1:
                account.note("named anew, for another has their id", place)
                ours["id"] = f"{id}#{ids[id]}"
        yield ours


def _example(row: Row, place: str, account: Account) -> Row | None:
    """Without what is empty or comes twice; None where no question or answer is left."""
    answers, gold = (_distinct(row.get(name) or []) for name in ("answers", "gold"))
    for name, value in (("question", row["question"].strip()), ("answer", answers)):
        if not value:
            account.note(f"left out, without {'an' if name == 'answer' else 'a'} {name}", place)
            return None
    ours = {"id": row.get("id"), "question": row["question"], "answers": answers}
    given = row.get("passages")
    passages = None if given is None else [each for each in (_passage(part, place, account) for part in given) if each]
    if passages and len({passage["id"] for passage in passages}) < len(passages):
        account.note("examples with several passages of one id, which are all kept", place)
    return {name: value for name, value in {**ours, "passages": passages, "gold": gold}.items() if value not in (None, "", [])}


def _passage(row: Row, place: str, account: Account) -> Row | None:
    for name in ("text", "id"):
        if not row[name].strip():
            account.note(f"passages left out, without {'an' if name == 'id' else 'a'} {name}", place)
            return None
    return row


def _distinct(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text.strip()))


def _unknown(source: Path, keys: Sequence[str]) -> str:
    known = ", ".join(name for name in NAMES if name != AUTO)
    told = f"the keys {', '.join(keys[:SHOWN])} are of no known format" if keys else "is of no known format"
    return f"{source}: {told}; say which it is with --from: {known}"
