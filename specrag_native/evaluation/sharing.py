"""Results made fit to be shared: compressed, and quoting no passage at length.

Law: rationales are left out and answers are cut after a few words; figures stay as they are, so a
report of shared results shows what a report of the originals does.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

from specrag_native.evaluation.records import Header, Record
from specrag_native.evaluation.results import read_lines

N_WORDS = 8
"""Words of an answer that are kept."""


def export(source: Path, target: Path) -> None:
    """Write the results file ``source`` to ``target`` (``.jsonl.gz``), fit to be shared.

    The same results give the same bytes; the target is put in place at once.
    """
    rows = (
        line.to_dict() if isinstance(line, Header) else shortened(line).to_dict(rationales=False)
        for line in read_lines(source)
    )
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(target.name + ".part")
    beside.write_bytes(gzip.compress(data.encode("utf-8"), compresslevel=9, mtime=0))
    beside.replace(target)


def shortened(record: Record) -> Record:
    """Return a record whose answers are cut after :data:`N_WORDS` words."""
    drafts = tuple(dataclasses.replace(d, answer=_first_words(d.answer)) for d in record.drafts)
    return dataclasses.replace(record, answer=_first_words(record.answer), drafts=drafts)


def _first_words(text: str) -> str:
    words = text.split()
    return " ".join(words[:N_WORDS]) + " \N{HORIZONTAL ELLIPSIS}" if len(words) > N_WORDS else text
