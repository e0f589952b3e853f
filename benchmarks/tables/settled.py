"""What settles a question: how often, how rightly and how fast, over all sets together."""

from __future__ import annotations

from statistics import median

from specrag_native.evaluation.records import Record
from tables.sets import besides, timed

DRAFT = "a draft"
RATIONALES = "the drafts' rationales"
LINKED = "two passages that complete each other, before drafting"
BEST = "the best passage"
PAIR = "two passages"
SHORT = "all passages, as they are short together"
MORE = "the best draft's passage besides, or everything"
NOTHING = "your documents do not say"
ORDER = (DRAFT, RATIONALES, LINKED, BEST, PAIR, SHORT, MORE, NOTHING)


def settled_by(record: Record) -> str:
    """Return which part of the method an answer is of."""
    if record.decided_by == "abstain":
        return NOTHING
    if not record.repairs:
        return DRAFT
    last = record.repairs[-1]
    drafted = bool(record.drafts) or record.task == "choice"  # which are never drafted first
    named = {"rationales": RATIONALES, "short": SHORT, "best": BEST}
    named["pair"] = PAIR if drafted else LINKED
    return named.get(str(last["step"]), MORE)


def settled_table() -> str:
    """Return the Markdown of the reporting halves, one line for each part of the method."""
    pairs = [pair for one in besides() for pair in one.pairs]
    if not pairs:
        return "Not measured yet."
    lines = [
        "| the answer is of | questions | right | standard RAG right | seconds, median |",
        "|---|---|---|---|---|",
    ]
    for name in ORDER:
        found = [(a, b) for a, b in pairs if settled_by(a) == name]
        if not found:
            continue
        ours, standard = (sum(p[i].grade.right for p in found) for i in (0, 1))
        seconds = [a.timings["total"] for a, b in found if timed(a, b)]
        clocked = f"{median(seconds):.1f}" if seconds else "not timed"
        cells = (str(len(found)), f"{ours:.0f}", f"{standard:.0f}", clocked)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
