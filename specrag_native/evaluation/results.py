"""Results of runs: JSON lines that are only ever appended, each file headed by what made it.

Law: a line on disk is never changed. A run that was killed is taken up after its last whole line;
a file of another format version is refused.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from specrag_native.errors import UserError
from specrag_native.evaluation.records import FORMAT, Header, Record, record_of, rounded


class ResultsError(UserError):
    """Results that cannot be read: another format version, or a broken line."""


@dataclass(frozen=True, slots=True)
class ResultSet:
    """The results of one file: its latest header, and its records by question id."""

    header: Header
    records: Mapping[str, Record]
    contended: frozenset[str] = frozenset()
    """Ids of the questions whose seconds were measured on a busy machine."""


def read_results(path: Path) -> ResultSet:
    """Read a results file, plain or gzip.

    A last line that was cut short by a kill is left out.

    Raises:
        ResultsError: another format version, no header, or a broken line before the last.
    """
    header: Header | None = None
    records: dict[str, Record] = {}
    contended: set[str] = set()
    for line in read_lines(path):
        if isinstance(line, Header):
            header = line
            continue
        records[line.id] = dataclasses.replace(line, machine=header.place if header else "")
        if header is not None and header.contended:
            contended.add(line.id)
    if header is None:
        raise ResultsError(f"{path} holds no results: a header was expected")
    return ResultSet(header, records, frozenset(contended))


def read_folder(folder: Path) -> list[ResultSet]:
    """Read every results file (``*.jsonl``, ``*.jsonl.gz``) of a folder, in order of their names.

    Raises:
        ResultsError: there is none, or one cannot be read.
    """
    paths = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not paths:
        raise ResultsError(f"{folder} holds no results: expected files named *.jsonl or *.jsonl.gz")
    return [read_results(path) for path in paths]


def file_name(header: Header) -> str:
    """Return the name of the file for results under this header."""
    variant = re.sub(r"[^a-zA-Z0-9.=+-]+", "-", header.variant)
    return f"{header.dataset}.{variant}.{header.config_hash[:8]}.jsonl"


class ResultFile:
    """A results file for appending; made at the first record, or taken up where it ends.

    Args:
        folder: where the file is, or will be.
        header: what the next results are made by. It is written when it differs from the file's
            latest one.

    Raises:
        ResultsError: the file that is there is of another format version, or of another config.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.path = folder / file_name(header)
        self.done: frozenset[str] = frozenset()
        self._header: Header | None = header
        self._file: TextIO | None = None
        if self.path.exists():
            self._drop_cut_line()
            if self.path.stat().st_size:
                found = read_results(self.path)
                self.done = frozenset(found.records)
                if found.header.config_hash != header.config_hash:
                    raise ResultsError(
                        f"{self.path} holds results of another configuration "
                        f"({found.header.config_hash}): choose another folder with --out"
                    )
                if rounded(found.header.to_dict()) == rounded(header.to_dict()):
                    self._header = None

    def append(self, record: Record) -> None:
        """Write one record and hand it to the operating system; its header goes first."""
        if self._header is not None:
            header, self._header = self._header, None
            self._write(header.to_dict())
        self._write(record.to_dict())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> ResultFile:
        """Return the file itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        self.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        text = json.dumps(rounded(row), ensure_ascii=False, allow_nan=False)
        # These two end a line for some readers.
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(text + "\n")
        self._file.flush()

    def _drop_cut_line(self) -> None:
        """Remove what follows the last line break: the line that was being written at a kill."""
        with self.path.open("rb+") as file:
            data = file.read()
            end = data.rfind(b"\n") + 1
            if end != len(data):
                file.truncate(end)
                os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[Header | Record]:
    """Yield the headers and records of a results file in their order.

    Raises:
        ResultsError: another format version, no header, or a broken line before the last.
    """
    headed = False
    for number, row in _rows(path):
        if row.get("type") == "header":
            headed = True
            yield _header(path, number, row)
            continue
        if not headed:
            raise ResultsError(f"{path}, line {number}: a header was expected first")
        try:
            record = record_of(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(
                f"{path}, line {number}: no result of format {FORMAT} ({error!r})"
            ) from None
        yield record


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError) as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if line == data[data.rfind(b"\n") + 1 :]:
                return
            raise ResultsError(f"{path}, line {number}: not JSON; restore or delete it") from None
        if not isinstance(row, dict):
            raise ResultsError(f"{path}, line {number}: expected an object")
        yield number, row


def _header(path: Path, number: int, row: Mapping[str, Any]) -> Header:
    if row.get("format") != FORMAT:
        raise ResultsError(
            f"{path}, line {number}: results of format {row.get('format')!r}, and this version "
            f"reads and writes format {FORMAT}: keep them, and choose another folder"
        )
    names = {f.name for f in dataclasses.fields(Header)}
    try:
        return Header(**{name: value for name, value in row.items() if name in names})
    except TypeError as error:
        raise ResultsError(f"{path}, line {number}: a header lacks a field ({error})") from None
