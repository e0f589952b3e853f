r"""Stored answers that a new drafter, `claims_above` or way of reading cannot change, taken over.

Where the verifier settled a question before anything was drafted, its answer, tokens and seconds
are the same whichever the drafter is; when claims are judged otherwise, what is no claim is not;
and where a draft was the answer, or all said that there is none, what the verifier would have read
(`repair`, `reading_weights`) made no difference, nor did a step of `repair` before which one gave
the answer, or which is not taken (`best`, where two passages complete each other, and for claims
and multiple choice). A lower `accept_above` changes nothing where the
verifier passed over none of its own answers, nor other `draft_weights` where it answered and no
draft is sure enough by them either. Those answers are copied to where a run with today's
drafter and settings goes on, and every other question is left to it. Other settings and models stay
those of the stored results, and what they make with today's wording must have the identity that is
stored. Where a run by default would have other settings still, and so another identity, a line says
which.

    python benchmarks/carry.py benchmarks/results/eval --out build/eval
    specrag eval SET.jsonl.gz --half report --limit 100 --method speculative --out build/eval
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from calibrate import surest

from specrag_native.answering.calibration import settings_for
from specrag_native.answering.repair import DRAFTING
from specrag_native.config import Config
from specrag_native.evaluation import machine
from specrag_native.evaluation.records import Header, Record
from specrag_native.evaluation.results import ResultFile, read_lines
from specrag_native.evaluation.variants import Variant
from specrag_native.model_files import catalog

ALONE = ("best_above", "best_linked_above")
"""Settings of when an answer from the best passage alone is taken."""
READING = ("repair", "reading_weights", *ALONE)
"""Settings of what the verifier reads, and how far that is trusted."""
JUDGING = ("draft_weights", "questions_above", "linked_above")
"""Settings of which drafts about questions are the answer."""


def main() -> None:
    """Copy what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("stored", type=Path, help="folder of results of before")
    parser.add_argument("--drafter", default=catalog.default("drafter"))
    parser.add_argument("--verifier", default=catalog.default("verifier"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    path = catalog.resolve(args.drafter, role="drafter").path
    today = settings_for(path, catalog.resolve(args.verifier, role="verifier").path)
    drafter = machine.model_files({"drafter": path})["drafter"]
    for source in sorted(args.stored.glob("*.speculative.*.jsonl.gz")):
        copied, left = carry(source, drafter, args.out, today)
        print(f"{source.name}: {copied} copied, {left} to be answered")


def carry(
    source: Path, drafter: Mapping[str, str], out: Path, today: Mapping[str, Any]
) -> tuple[int, int]:
    """Copy the records of a results file that today's drafter and settings cannot change.

    Returns:
        How many were copied, and how many were not.

    Raises:
        SystemExit: with today's wording and names of settings they would have another identity.
    """
    before: Header | None = None
    header: Header | None = None
    file: ResultFile | None = None
    copied = left = 0
    for line in read_lines(source):
        if isinstance(line, Header):
            before, header = line, _as_today(line, drafter, source, today)
            if file is not None:
                file.close()
            file = ResultFile(out, header)
            continue
        assert before and header and file, f"{source} does not begin with a header"
        if not untouched(line, before, header):
            left += 1
        elif line.id not in file.done:
            file.append(dataclasses.replace(line, config_hash=header.config_hash))
            copied += 1
    if file is not None:
        file.close()
    return copied, left


def untouched(record: Record, before: Header, after: Header) -> bool:
    """Return whether a question was answered without what differs between two headers."""
    drafted = any(repair["step"] in DRAFTING for repair in record.repairs)
    drafted = drafted or bool(record.drafts) or "drafter" in record.usage
    if drafted and before.models["drafter"]["sha256"] != after.models["drafter"]["sha256"]:
        return False
    judged = before.config.get("claims_above") != after.config.get("claims_above")
    if (judged and record.task == "claim") or _read_otherwise(record, before.config, after.config):
        return False
    lowered = before.config.get("accept_above") != after.config.get("accept_above")
    if lowered and _passed_over(record, after.config):
        return False
    weighed = any(_plain(before.config.get(n)) != _plain(after.config.get(n)) for n in JUDGING)
    if weighed and record.task == "qa" and not _left_to_the_verifier(record, after.config):
        return False
    return not record.error


def _read_otherwise(record: Record, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether the steps of a question had been others with what differs in reading."""
    if not record.repairs:
        return False
    if _plain(before.get("reading_weights")) != _plain(after.get("reading_weights")):
        return True
    orders = [_taken_steps(record, config) for config in (before, after)]
    if orders[0] == orders[1]:
        return _alone_otherwise(record, before, after)
    alike = [a for a, b in takewhile(lambda two: two[0] == two[1], zip(*orders, strict=False))]
    settled = bool(record.repairs[-1].get("decided"))
    return not settled or any(step["step"] not in alike for step in record.repairs)


def _alone_otherwise(record: Record, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether an answer from the best passage might be taken, or not, by other thresholds.

    A higher one changes nothing where an answer was not taken, or is as sure as the highest of all.
    """
    alone = next((step for step in record.repairs if step["step"] == "best"), None)
    old, new = ([_threshold(config, name) for name in ALONE] for config in (before, after))
    if alone is None or old == new:
        return False
    raised = all(a <= b for a, b in zip(old, new, strict=True))
    return not raised or (bool(alone.get("decided")) and alone["probability"] < max(new))


def _threshold(config: Mapping[str, Any], name: str) -> float:
    """Return a threshold of ``ALONE``, or what stands for it where there is none."""
    found = (config.get(n) for n in (name, "best_above", "accept_above"))
    return float(next(x for x in found if x is not None))


def _taken_steps(record: Record, config: Mapping[str, Any]) -> list[str]:
    """Return the steps of ``repair`` but for ``best`` where it reads nothing."""
    steps = [s.strip() for s in str(config["repair"]).split(",")]
    drafted_first = config.get("questions_above") is not None
    hops = config.get("multihop_above") is not None and drafted_first and not record.drafts
    if record.task in ("claim", "choice") or hops:
        return [s for s in steps if s != "best"]
    return steps


def _passed_over(record: Record, config: Mapping[str, Any]) -> bool:
    """Return whether the verifier read an answer and read on, and `accept_above` had a say."""
    rationales = () if config.get("rationales_above") is None else ("rationales",)
    return any(
        step.get("answer") and step.get("grounded", True)
        for step in record.repairs[:-1]
        if step["step"] not in (*DRAFTING, *rationales)
    )


def _left_to_the_verifier(record: Record, config: Mapping[str, Any]) -> bool:
    """Return whether it answered what no draft may answer by these settings either."""
    if record.decided_by not in ("repair", "standard"):
        return False
    weights, least = config.get("draft_weights", ()), config.get("questions_above")
    if least is None or not weights:
        return least is None
    return surest(record, weights) < least


def _as_today(
    header: Header, drafter: Mapping[str, str], source: Path, today: Mapping[str, Any]
) -> Header:
    """Return a header of the same settings but for today's drafter and what may have changed.

    Its weights are of the same type.
    """
    before = Variant(header.variant, header.method, Config(**header.config))

    def identity(variant: Variant, models: Mapping[str, Mapping[str, str]]) -> str:
        return variant.config_hash(
            models={role: machine.identity(facts) for role, facts in models.items()},
            evidence=header.evidence,
        )

    if identity(before, header.models) != header.config_hash:
        raise SystemExit(
            f"{source} was answered with other settings or wording than today's "
            f"({header.config_hash}, expected {identity(before, header.models)}): answer it anew"
        )
    fresh = {name: today[name] for name in (*READING, *JUDGING) if name in today}
    accepted = today.get("accept_above", before.config.accept_above)
    fresh["accept_above"] = min(accepted, before.config.accept_above)
    config = before.config.replace(claims_above=today.get("claims_above"), **fresh)
    default = config.replace(**today)
    others = [n for n in today if _plain(getattr(config, n)) != _plain(getattr(default, n))]
    if others:
        print(f"{source.name}: a run by default has other settings: {', '.join(others)}")
    after = dataclasses.replace(before, config=config)
    weights = {n: v for n, v in header.models["drafter"].items() if n == "weights"}
    models = {**header.models, "drafter": {**drafter, **weights}}
    return dataclasses.replace(
        header, config=after.settings, models=models, config_hash=identity(after, models)
    )


def _plain(value: Any) -> Any:
    """Return a setting as it is compared: a stored header has lists for tuples."""
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
