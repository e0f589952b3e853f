"""What happens when no draft is good enough: more drafts, or the verifier reads passages itself.

Law: what the verifier has read stays the beginning of what it reads next, so nothing is computed
twice, and its last word counts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from specrag_native.answering.baselines import StandardRAG, probability
from specrag_native.answering.budget import tokens_in
from specrag_native.answering.citations import cite
from specrag_native.answering.confidence import reading_confidence
from specrag_native.answering.grounding import stands_in
from specrag_native.answering.rounds import Rounds
from specrag_native.answering.run import Cost, Models, Run
from specrag_native.answering.verifier import answer_key
from specrag_native.config import Config
from specrag_native.prompts import is_unknown
from specrag_native.types import DecidedBy, Draft, Hit, Passage, Repair, RepairStep, Verdict

_NAMES = {
    "rationales": "reading the rationales",
    "subset": "reading the best passages",
    "more": "reading more passages",
    "all": "reading all passages",
}
"""What an answer calls a step that did not fit into its budget."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a step gives the verifier to read, and the ``passages`` that it comes from."""

    read: tuple[Passage, ...]
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer that the verifier read from passages itself; empty where it found none.

    ``whole``: it has read all passages. ``grounded``: the answer stands in what it read.
    """

    answer: str
    confidence: float
    decided_by: DecidedBy
    passages: tuple[Passage, ...]
    whole: bool
    grounded: bool

    @property
    def found(self) -> bool:
        """Whether it is an answer, and one from the passages."""
        return bool(self.answer) and self.grounded


@dataclass(slots=True)
class Repaired:
    """What repair came to.

    ``reading``: the verifier's answer; without one, the best draft stands as it did, unless there
    is ``nothing_there``: the verifier read all it may, and the last word is that it found nothing.
    """

    steps: list[Repair] = field(default_factory=list)
    reading: Reading | None = None
    nothing_there: bool = False


def repair(run: Run, rounds: Rounds, models: Models, config: Config) -> Repaired:
    """Take the steps of ``config.repair`` until one gives an answer or time is up."""
    out = Repaired()
    seen: tuple[Passage, ...] = ()
    whole = True  # nothing was left out of what may be read
    left = list(config.repair_steps)
    while left:
        step = left.pop(0)
        if step == "redraft":
            if _redraft(run, rounds, out, reads_next=reads(left)):
                out.reading, out.nothing_there = None, False
                break
            continue
        evidence = evidence_of(step, rounds.verdicts, run.hits, seen, config.unknown_above)
        if evidence is None:
            continue
        tokens = _tokens(evidence.read) - (_tokens(seen) if step != "rationales" else 0.0)
        if not run.budget.fits("verifier", tokens):
            run.budget.leave_out(_NAMES[step])
            whole = False
            continue
        reading = _read(run, rounds, models, config, step, evidence, out)
        if reading is None:  # time is up
            whole = False
            continue
        taken = reading.found and reading.confidence >= config.abstain_below
        out.reading, out.nothing_there = (reading if taken else None), not taken
        enough = step == "more" or not left or reading.confidence >= config.accept_above
        if taken and enough:
            break
        if step != "rationales":
            seen = evidence.read
        if step == "more":
            left.insert(0, step)
    out.nothing_there &= whole
    if out.reading is not None:
        at = max(
            i for i, s in enumerate(out.steps) if s.answer and s.grounded and s.step != "redraft"
        )
        out.steps[at] = dataclasses.replace(out.steps[at], decided=True)
    return out


def reads(steps: Sequence[RepairStep]) -> bool:
    """Return whether the first of the steps to come lets the verifier read."""
    return bool(steps) and steps[0] != "redraft"


# --- Drafting once more --------------------------------------------------------------------------


def _redraft(run: Run, rounds: Rounds, out: Repaired, *, reads_next: bool) -> bool:
    """Draft over other subsets and judge again; return whether a draft is good enough now."""
    with run.measured() as cost:
        if not rounds.redraft():
            return False
        rounds.verify(reads_next=reads_next)
    answer = rounds.winner.draft.answer if rounds.winner is not None else ""
    out.steps.append(
        Repair(
            "redraft", answer, rounds.trust, rounds.confident, cost.seconds, usage=dict(cost.usage)
        )
    )
    return rounds.confident


# --- Reading -------------------------------------------------------------------------------------


def evidence_of(
    step: RepairStep,
    verdicts: Sequence[Verdict],
    hits: Sequence[Hit],
    seen: Sequence[Passage],
    unknown_above: float | None = None,
) -> Evidence | None:
    """Return what a step reads, or ``None`` when that is nothing new.

    ``seen`` is what was read before; it comes first. With ``unknown_above``, the drafter is trusted
    to tell evidence from other passages: then the best hit is not read besides, and ``more`` reads
    nothing where the drafter says with that probability that there is no evidence.
    """
    if step == "rationales":
        found = list(rationales(verdicts))
        return Evidence(tuple(r for r, _ in found), tuple(p for _, p in found)) if found else None
    read = {p.id for p in seen}
    besides = () if step == "subset" else read
    if unknown_above is None:
        next_ones = _with_best_hit(best_evidence(verdicts, besides=besides), hits, besides)
    else:
        candidates = verdicts
        if step == "more":
            candidates = [v for v in verdicts if not _ruled_out(v.draft, unknown_above)]
        next_ones = list(best_evidence(candidates, besides=besides))
    new = [p for p in next_ones if p.id not in read]
    if step == "all":
        read.update(p.id for p in new)
        new += [h.passage for h in hits if h.passage.id not in read]
    passages = (*seen, *new)
    return Evidence(passages, passages) if new else None


def _ruled_out(draft: Draft, unknown_above: float) -> bool:
    none = draft.unknown_logprob
    return none is not None and none >= math.log(unknown_above)


def _with_best_hit(
    evidence: Sequence[Passage], hits: Sequence[Hit], read: Collection[str]
) -> list[Passage]:
    """Return evidence and the best hit that was not read yet, in the order of the hits."""
    left = [h.passage for h in hits if h.passage.id not in read]
    few = {p.id for p in (*evidence, *left[:1])}
    return [p for p in left if p.id in few]


def best_evidence(
    verdicts: Sequence[Verdict], *, besides: Collection[str] = ()
) -> tuple[Passage, ...]:
    """Return the passages of the most promising draft, besides some; see :func:`promise`.

    A draft of which all are among those is passed over.
    """
    for verdict in sorted(verdicts, key=promise, reverse=True):
        if found := tuple(p for p in verdict.draft.subset.passages if p.id not in besides):
            return found
    return ()


def promise(verdict: Verdict) -> tuple[bool, bool, float]:
    """Return the order of verdicts by how likely their passages hold the answer.

    Verified drafts come first, by total; then known ones, then the rest, those first where the
    drafter was least inclined to say that there is no evidence: that tells passages with an answer
    from others better than the probability of what it wrote, most of which is copied.
    """
    draft, scores = verdict.draft, verdict.scores
    if verdict.verified:
        return True, True, scores.total
    none = draft.unknown_logprob
    return False, not draft.unknown, scores.draft if none is None else -none


def rationales(verdicts: Sequence[Verdict]) -> Iterator[tuple[Passage, Passage]]:
    """Yield the rationales of drafts that have an answer, as short passages, with their passage.

    The most promising comes first. What no passage of a draft supports was made up by the drafter,
    and is no evidence: it is not among them.
    """
    seen = set()
    for verdict in sorted(verdicts, key=promise, reverse=True):
        draft = verdict.draft
        if draft.unknown or draft.rationale in seen:
            continue
        seen.add(draft.rationale)
        cited = cite(draft.rationale, draft.answer, draft.subset.passages).citations
        for passage in draft.subset.passages:
            if cited and _holds(passage, cited[0].document, cited[0].start, cited[0].end):
                yield dataclasses.replace(passage, text=draft.rationale), passage
                break


def agreeing_rationale(reading: Reading, verdicts: Sequence[Verdict]) -> str:
    """Return the rationale of the most promising draft that gives the same answer as a reading.

    Only drafts whose passages were read count; empty when there is none.
    """
    read = {p.id for p in reading.passages}
    key = answer_key(reading.answer)
    for verdict in sorted(verdicts, key=promise, reverse=True):
        draft = verdict.draft
        same = not draft.unknown and answer_key(draft.answer) == key
        if same and read.issuperset(draft.subset.ids):
            return draft.rationale
    return ""


def _holds(passage: Passage, document: str, start: int, end: int) -> bool:
    return passage.document == document and passage.start <= start and end <= passage.end


def _read(
    run: Run,
    rounds: Rounds,
    models: Models,
    config: Config,
    step: RepairStep,
    evidence: Evidence,
    out: Repaired,
) -> Reading | None:
    """Let the verifier answer from evidence; ``None`` when time was up before it had.

    What it writes is not shown as it is written: it may turn out not to stand in what was read.
    """
    reader = StandardRAG(models.verifier, config, may_abstain=True)
    reading, said = None, 0.0
    with run.measured() as cost, run.stage("repair"), run.may_be_cut(_NAMES[step]):
        text, logprob, usage = reader.answer(run.question, evidence.read, cancel=run.flag)
        run.add("verifier", usage)
        said = probability(logprob)
        reading = _reading(run, rounds, config, step, evidence, text, said)
    out.steps.append(_taken(step, reading, said, cost))
    return reading


def _reading(
    run: Run,
    rounds: Rounds,
    config: Config,
    step: RepairStep,
    evidence: Evidence,
    text: str,
    said: float,
) -> Reading:
    whole = step != "rationales" and len(evidence.read) == len(run.hits)
    answer = "" if is_unknown(text) else text
    drafts = [v.draft for v in rounds.verdicts]
    return Reading(
        answer=answer,
        confidence=reading_confidence(text, said, drafts, config.reading_weights, whole=whole),
        decided_by="standard" if whole else "repair",
        passages=evidence.passages,
        whole=whole,
        grounded=not (answer and config.grounded)
        or stands_in(answer, run.question, evidence.passages),
    )


def _taken(step: RepairStep, reading: Reading | None, said: float, cost: Cost) -> Repair:
    """Return the record of a step that let the verifier read; ``None``: time was up before."""
    return Repair(
        step,
        reading.answer if reading else "",
        reading.confidence if reading else 0.0,
        decided=False,
        seconds=cost.seconds,
        usage=dict(cost.usage),
        probability=said,
        whole=reading is not None and reading.whole,
        grounded=reading is None or reading.grounded,
    )


def _tokens(passages: Sequence[Passage]) -> float:
    return tokens_in(*(p.text for p in passages))
