"""What happens when no draft is good enough: more drafts, or the verifier reads passages itself.

Where the steps say so, drafting waits for its turn among them.

Law: what the verifier has read stays the beginning of what it reads next, so nothing is computed
twice, and its last word counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from specrag_native.answering.baselines import StandardRAG, probability
from specrag_native.answering.budget import tokens_in
from specrag_native.answering.confidence import reading_confidence
from specrag_native.answering.evidence import Evidence, by_promise, evidence_of
from specrag_native.answering.extracts import extracts
from specrag_native.answering.grounding import stands_in
from specrag_native.answering.links import Links
from specrag_native.answering.reranking import sentence_likeness
from specrag_native.answering.rounds import Rounds, drafts_decide
from specrag_native.answering.run import Cost, Models, Run
from specrag_native.answering.verifier import answer_key
from specrag_native.config import Config
from specrag_native.errors import ContextFullError
from specrag_native.prompts import is_unknown
from specrag_native.types import DecidedBy, Passage, Repair, RepairStep, Verdict

_NAMES = {
    "rationales": "reading the rationales",
    "sentences": "reading the best sentences",
    "extracts": "reading the best sentences",
    "short": "reading short passages",
    "best": "reading the best passage",
    "subset": "reading the best passages",
    "named": "reading what the question names",
    "pair": "reading two passages",
    "linked": "reading linked passages",
    "more": "reading more passages",
    "all": "reading all passages",
}
"""What an answer calls a step that did not fit into its budget."""

DRAFTING = ("draft", "redraft")
"""The steps in which the drafter writes and the verifier does not read."""
MOST_EXTRACTED = 5
"""Of how many passages that a cross-encoder ranked the sentences are judged: those of the others
are hardly ever among the best, and judging them costs time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer that the verifier read from passages itself; empty where it found none.

    ``probability``: its mean per token. ``whole``: it has read all passages. ``grounded``: the
    answer stands in what it read.
    """

    answer: str
    probability: float
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


def steps_of(run: Run, config: Config) -> tuple[RepairStep, ...]:
    """Return the steps of ``config.repair`` for a question that may have been drafted before."""
    steps = config.repair_steps
    if run.question.task in ("claim", "choice"):
        steps = tuple(s for s in steps if s != "best")
    drafted = drafts_decide(run, config) is not None
    return tuple(s for s in steps if s != "draft") if drafted else steps


def drafts_first(run: Run, config: Config) -> bool:
    """Return whether drafts are written before anything is read: they are no step of their own."""
    return "draft" not in steps_of(run, config)


def reads_at_once(run: Run, config: Config) -> bool:
    """Return whether the first that is done is to read all passages, as they are short."""
    if drafts_first(run, config) or config.repair_steps[0] != "short":
        return False
    return evidence_of("short", (), run.hits, ()) is not None


def repair(run: Run, rounds: Rounds, models: Models, config: Config) -> Repaired:
    """Take the steps of ``config.repair`` until one gives an answer or time is up."""
    out = Repaired()
    seen: tuple[Passage, ...] = ()
    alone: tuple[Passage, ...] = ()  # what ``best`` read, with which ``pair`` begins
    whole = True  # nothing was left out of what may be read
    too_long: ContextFullError | None = None
    left = list(steps_of(run, config))
    links = run.links if {"best", "named", "pair", "linked"} & set(left) else None

    def extract(passages: Sequence[Passage]) -> Sequence[tuple[Passage, Passage]]:
        found: Sequence[tuple[Passage, Passage]] = ()
        with run.stage("repair"), run.may_be_cut(_NAMES["sentences"]):
            if config.rerank:
                passages = passages[:MOST_EXTRACTED]
            judge = sentence_likeness(run, models, config)
            found = extracts(passages, judge, tokens=config.sentence_tokens)
        return found

    def fits(step: RepairStep, tokens: float) -> bool:
        nonlocal whole
        if run.budget.fits("verifier", tokens):
            return True
        run.budget.leave_out(_NAMES[step])
        whole = False
        return False

    while left:
        step = left.pop(0)
        if step in DRAFTING:
            if len(seen) == len(run.hits) or (step == "redraft" and out.reading is not None):
                continue  # no draft can better what was all read, nor another round what was read
            if _draft(step, run, rounds, out, seen, reads_next=reads(left)):
                out.reading, out.nothing_there = None, False
                break
            continue
        if step in ("sentences", "extracts") and not fits(step, config.sentence_tokens):
            continue  # nor are they looked for
        known = () if step == "pair" and seen == alone else seen
        evidence = evidence_of(
            step, rounds.verdicts, run.hits, known, config.unknown_above, extract, links, run.hops
        )
        if evidence is None or evidence.read == seen:  # nothing new
            continue
        if step == "rationales" and len(evidence.read) < config.min_rationales:
            continue
        tokens = _tokens(evidence.read) - (_tokens(seen) if evidence.begins_whole else 0.0)
        if not fits(step, tokens):
            continue
        try:
            reading = _read(run, rounds, models, config, step, evidence, out)
        except ContextFullError as error:
            too_long, whole = error, False
            run.too_long.append(f"{_NAMES[step]}: {error.n_tokens} tokens, {error.n_ctx} fit")
            continue
        if reading is None:  # time is up
            whole = False
            continue
        taken = reading.found and reading.confidence >= config.abstain_below
        out.reading, out.nothing_there = (reading if taken else None), not taken
        likely = reading.probability >= _least(step, evidence, links, config)
        told = ((s.step, s.answer) for s in out.steps)
        likely = likely and not (step == "best" and told_otherwise(reading.answer, told))
        enough = step == "more" or not left or likely
        if taken and enough:
            break
        nothing = not reading.found and evidence.whole and step != "best"
        if nothing and run.relevance < config.irrelevant_below:
            break  # to read on takes longest where there is nothing to be found
        seen = evidence.whole
        alone = seen if step == "best" else alone
        if step == "more":
            left.insert(0, step)
    read = any(s.step not in DRAFTING for s in out.steps)
    if too_long is not None and not read and rounds.winner is None:
        raise too_long  # nothing could be read at all
    out.nothing_there &= whole
    if out.reading is not None:
        at = max(
            i for i, s in enumerate(out.steps) if s.answer and s.grounded and s.step not in DRAFTING
        )
        out.steps[at] = dataclasses.replace(out.steps[at], decided=True)
    return out


def reads(steps: Sequence[RepairStep]) -> bool:
    """Return whether the first of the steps to come lets the verifier read."""
    return bool(steps) and steps[0] not in DRAFTING


# --- Drafting ------------------------------------------------------------------------------------


def _draft(
    step: RepairStep,
    run: Run,
    rounds: Rounds,
    out: Repaired,
    seen: Sequence[Passage],
    *,
    reads_next: bool,
) -> bool:
    """Draft, for the first time over what was not read or again over other subsets, and judge.

    Returns:
        Whether a draft is good enough now.
    """
    with run.measured() as cost:
        if step == "draft":
            rounds.draft({p.id for p in seen})
        elif not rounds.redraft():
            return False
        rounds.verify(reads_next=reads_next)
    answer = rounds.winner.draft.answer if rounds.winner is not None else ""
    usage = dict(cost.usage)
    out.steps.append(
        Repair(step, answer, rounds.trust, rounds.confident, cost.seconds, usage=usage)
    )
    return rounds.confident


# --- Reading -------------------------------------------------------------------------------------


def agreeing_rationale(reading: Reading, verdicts: Sequence[Verdict]) -> str:
    """Return the rationale of the most promising draft that gives the same answer as a reading.

    Only drafts whose passages were read count; empty when there is none.
    """
    read = {p.id for p in reading.passages}
    key = answer_key(reading.answer)
    for verdict in by_promise(verdicts):
        draft = verdict.draft
        same = not draft.unknown and answer_key(draft.answer) == key
        if same and read.issuperset(draft.subset.ids):
            return draft.rationale
    return ""


def _least(step: RepairStep, evidence: Evidence, links: Links | None, config: Config) -> float:
    """Return the probability that an answer needs when a later step could find a better one."""
    least = None
    if step == "rationales":
        least = config.rationales_above
    elif step == "best":
        assert links is not None, "it is not known what is linked"
        may_take_two = any(links.linked[p.id] for p in evidence.whole)
        least = config.best_linked_above if may_take_two else None
        least = config.best_above if least is None else least
    return config.accept_above if least is None else least


def told_otherwise(answer: str, steps: Iterable[tuple[str, str]]) -> bool:
    """Return whether the rationales gave another answer, by the steps taken and their answers."""
    key = answer_key(answer)
    return any(step == "rationales" and told and answer_key(told) != key for step, told in steps)


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
    reading = None
    with run.measured() as cost, run.stage("repair"), run.may_be_cut(_NAMES[step]):
        text, logprob, usage = reader.answer(
            run.question, evidence.read, keeps_first=evidence.begins_whole, cancel=run.flag
        )
        run.add("verifier", usage)
        reading = _reading(run, rounds, config, evidence, text, probability(logprob))
    out.steps.append(_taken(step, reading, cost))
    return reading


def _reading(
    run: Run,
    rounds: Rounds,
    config: Config,
    evidence: Evidence,
    text: str,
    said: float,
) -> Reading:
    whole = len(evidence.whole) == len(evidence.read) == len(run.hits)
    answer = "" if is_unknown(text) else text
    drafts = [v.draft for v in rounds.verdicts]
    return Reading(
        answer=answer,
        probability=said,
        confidence=reading_confidence(text, said, drafts, config.reading_weights, whole=whole),
        decided_by="standard" if whole else "repair",
        passages=evidence.passages,
        whole=whole,
        grounded=not (answer and config.grounded)
        or stands_in(answer, run.question, evidence.passages),
    )


def _taken(step: RepairStep, reading: Reading | None, cost: Cost) -> Repair:
    """Return the record of a step that let the verifier read; ``None``: time was up before."""
    return Repair(
        step,
        reading.answer if reading else "",
        reading.confidence if reading else 0.0,
        decided=False,
        seconds=cost.seconds,
        usage=dict(cost.usage),
        probability=reading.probability if reading else 0.0,
        whole=reading is not None and reading.whole,
        grounded=reading is None or reading.grounded,
    )


def _tokens(passages: Sequence[Passage]) -> float:
    return tokens_in(*(p.text for p in passages))
