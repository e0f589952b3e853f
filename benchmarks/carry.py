r"""Stored answers that a new drafter cannot change, taken over from the drafter before.

Where the verifier settled a question before anything was drafted, its answer, tokens and seconds
are the same whichever the drafter is. Those are copied to where a run with the new drafter goes on;
every question for which anything was drafted is left to it. Settings and other models stay those of
the stored results, and what they make with today's wording must have the identity that is stored.

    python benchmarks/carry.py benchmarks/results/eval --out build/eval
    specrag eval SET.jsonl.gz --half report --limit 100 --method speculative --out build/eval
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from specrag_native.config import Config
from specrag_native.evaluation import machine
from specrag_native.evaluation.records import Header, Record
from specrag_native.evaluation.results import ResultFile, read_lines
from specrag_native.evaluation.variants import Variant
from specrag_native.model_files import catalog


def main() -> None:
    """Copy what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stored", type=Path, help="folder of results of the drafter before")
    parser.add_argument("--drafter", default=catalog.default("drafter"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    path = catalog.resolve(args.drafter, role="drafter").path
    drafter = machine.model_files({"drafter": path})["drafter"]
    for source in sorted(args.stored.glob("*.speculative.*.jsonl.gz")):
        copied, left = carry(source, drafter, args.out)
        print(f"{source.name}: {copied} copied, {left} to be answered")


def carry(source: Path, drafter: Mapping[str, str], out: Path) -> tuple[int, int]:
    """Copy the records of a results file that nothing was drafted for.

    Returns:
        How many were copied, and how many were not.

    Raises:
        SystemExit: with today's wording and names of settings they would have another identity.
    """
    header: Header | None = None
    file: ResultFile | None = None
    copied = left = 0
    for line in read_lines(source):
        if isinstance(line, Header):
            header = _with_drafter(line, drafter, source)
            if file is not None:
                file.close()
            file = ResultFile(out, header)
            continue
        assert header is not None and file is not None, f"{source} does not begin with a header"
        if not untouched(line):
            left += 1
        elif line.id not in file.done:
            file.append(dataclasses.replace(line, config_hash=header.config_hash))
            copied += 1
    if file is not None:
        file.close()
    return copied, left


def untouched(record: Record) -> bool:
    """Return whether a question was answered without the drafter."""
    drafted = any(repair["step"] in ("draft", "redraft") for repair in record.repairs)
    return not (drafted or record.drafts or "drafter" in record.usage or record.error)


def _with_drafter(header: Header, drafter: Mapping[str, str], source: Path) -> Header:
    """Return a header of the same settings with another drafter."""
    variant = Variant(header.variant, header.method, Config(**header.config))

    def identity(models: Mapping[str, Mapping[str, str]]) -> str:
        return variant.config_hash(
            models={role: machine.identity(facts) for role, facts in models.items()},
            evidence=header.evidence,
        )

    if identity(header.models) != header.config_hash:
        raise SystemExit(
            f"{source} was answered with other settings or wording than today's "
            f"({header.config_hash}, expected {identity(header.models)}): answer it anew"
        )
    models = {**header.models, "drafter": drafter}
    return dataclasses.replace(header, models=models, config_hash=identity(models))


if __name__ == "__main__":
    main()
