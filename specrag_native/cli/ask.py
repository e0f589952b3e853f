"""``specrag ask``: one question, answered from the index, with everything that supports it."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specrag_native.cli.index_options import add_embedder_options, add_index_option, index_dir
from specrag_native.cli.settings import add_set_option, read_settings

if TYPE_CHECKING:
    from specrag_native.events import Event
    from specrag_native.types import Answer, Question, Verdict


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "ask",
        help="answer a question from the indexed documents",
        description="Answer a question from the indexed documents, with rationale, citations and "
        "confidence.",
    )
    parser.add_argument("question", metavar="QUESTION")
    add_index_option(parser)
    parser.add_argument(
        "--method",
        choices=("speculative", "standard", "drafter"),
        default="speculative",
        help="speculative (default); standard: the verifier reads all passages; drafter: the "
        "drafter alone",
    )
    parser.add_argument("--drafts", type=int, metavar="M", help="drafts (default: 5)")
    parser.add_argument(
        "--per-draft", type=int, metavar="K", help="passages per draft (default: 2)"
    )
    parser.add_argument("--top", type=int, metavar="N", help="passages retrieved (default: 10)")
    parser.add_argument(
        "--claim", action="store_true", help="the question is a claim: is it true or false?"
    )
    parser.add_argument(
        "--choice",
        action="append",
        metavar="TEXT",
        help="an option of a multiple-choice question; give it once for each option",
    )
    parser.add_argument("--drafter", metavar="MODEL", help="as --embedder, for the drafter")
    parser.add_argument("--verifier", metavar="MODEL", help="as --embedder, for the verifier")
    parser.add_argument("--reranker", metavar="MODEL", help="as --embedder, for the reranker")
    parser.add_argument("--hop-ranker", metavar="MODEL", help="as --embedder, for the hop ranker")
    add_embedder_options(parser)
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="seconds the answer may take, such as 5s; what does not fit is left out, and said",
    )
    add_set_option(parser)
    parser.add_argument("--seed", type=int, metavar="N", help="seed of clustering (default: 0)")
    parser.add_argument("--show-drafts", action="store_true", help="also print every draft")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer and print."""
    from specrag_native.answering.budget import parse_seconds
    from specrag_native.errors import QuestionError
    from specrag_native.session import SpeculativeRAG

    question = _question(args)
    if not question.text.strip():  # before models are loaded
        raise QuestionError("the question is empty: ask something")
    settings = _settings(args)
    budget = parse_seconds(args.budget) if args.budget is not None else None
    with contextlib.ExitStack() as stack:
        status = stack.enter_context(_Status(shown=sys.stderr.isatty() and not args.json))
        written = _Written(status, shown=sys.stdout.isatty() and not args.json)
        rag = stack.enter_context(
            SpeculativeRAG.open(
                index_dir(args),
                settings=settings,
                drafter=args.drafter,
                verifier=args.verifier,
                embedder=args.embedder,
                reranker=args.reranker,
                hop_ranker=args.hop_ranker,
                threads=args.threads,
                n_gpu_layers=args.gpu_layers,
                method=args.method,
            )
        )
        answer = rag.answer(question, method=args.method, budget_s=budget, on_event=written.show)
    if args.json:
        print(json.dumps(answer.to_dict(), indent=2, ensure_ascii=False))
        return 0
    if written.shown:
        print()
    else:
        print(clean(answer.answer))
    print_basis(answer, print, show_drafts=args.show_drafts)
    return 0


def _question(args: argparse.Namespace) -> Question:
    from specrag_native.errors import QuestionError
    from specrag_native.types import Question

    if args.claim and args.choice:
        raise QuestionError("--claim and --choice cannot stand together: choose one")
    if args.choice:
        if not 2 <= len(args.choice) <= 26:
            raise QuestionError(f"--choice must be given 2 to 26 times, got {len(args.choice)}")
        letters = {chr(ord("A") + i): text for i, text in enumerate(args.choice)}
        return Question(args.question, "choice", letters)
    return Question(args.question, "claim" if args.claim else "qa")


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    from specrag_native.config import Config

    given = {
        "n_drafts": args.drafts,
        "passages_per_draft": args.per_draft,
        "top": args.top,
        "seed": args.seed,
    }
    chosen = read_settings(args.set)
    chosen.update((name, value) for name, value in given.items() if value is not None)
    Config.from_mapping(chosen)  # a wrong option is told before anything is opened
    return chosen


class _Status:
    """One line on a terminal that says what is being done, gone when the answer is there."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._words = 0

    def __enter__(self) -> _Status:
        self._say("loading models")
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Take the line away, and say nothing more."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self._shown = False

    def _say(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text} ...")
            sys.stderr.flush()

    def show(self, event: Event) -> None:
        from specrag_native.events import DraftText, Retrieved, Verified

        if isinstance(event, Retrieved):
            self._say(f"{len(event.hits)} passages found, reading")
        elif isinstance(event, DraftText):
            self._words += 1
            if self._words % 8 == 0:
                self._say(f"drafting ({self._words} pieces)")
        elif isinstance(event, Verified):
            self._say("deciding")


class _Written:
    """The answer on a terminal, as it is written; the status line makes room for it."""

    def __init__(self, status: _Status, *, shown: bool) -> None:
        self._status = status
        self._wanted = shown
        self.shown = ""

    def show(self, event: Event) -> None:
        """Show an event."""
        from specrag_native.events import AnswerText

        if not isinstance(event, AnswerText):
            self._status.show(event)
        elif self._wanted:
            if not self.shown:
                self._status.clear()
            text = spaced(event.text)
            if not self.shown or self.shown[-1] == " ":
                text = text.lstrip(" ")
            self.shown += text
            sys.stdout.write(text)
            sys.stdout.flush()


def print_basis(answer: Answer, line: Callable[[str], None], *, show_drafts: bool = False) -> None:
    """Print for a person what an answer rests on, below the answer."""
    line("")
    if answer.rationale:
        line(f"Because  {clean(answer.rationale)}")
    for i, c in enumerate(answer.citations, 1):
        page = f", page {c.page}" if c.page is not None else ""
        line(f"[{i}] {clean(_short(c.document))}{page}, characters {c.start}-{c.end}")
        line(f"    \u201c{clean(c.text)}\u201d")
    for sentence in answer.unsupported:
        line(f"Not found in the documents: \u201c{clean(sentence)}\u201d")
    if answer.decided_by != "abstain":
        line(f"Confidence {answer.confidence:.0%}, decided by {answer.decided_by}")
    if answer.left_out:
        line(f"Left out for lack of time: {', '.join(answer.left_out)}")
    for too_long in answer.too_long:
        line(f"Did not fit into the model: {too_long}")
    for skipped in answer.skipped:
        line(f"Not needed: {skipped}")
    for i, step in enumerate(answer.repairs):
        said = clean(step.answer) or "found nothing"
        end = ", not taken" if step.answer and not step.decided else ""
        end = end if step.grounded else ", which is not in what was read"
        name = "Repair  " if i == 0 else "        "
        line(f"{name} {step.step}, {step.seconds:.2f} s: {said}{end}")
    if answer.verdicts:
        line("")
        written = [v for v in answer.verdicts if not v.draft.outranked]
        verified = sum(v.verified for v in written)
        others = len(answer.verdicts) - len(written)
        more = f", {others} not written: less likely to hold the answer" if others else ""
        drafts = "1 draft" if len(written) == 1 else f"{len(written)} drafts"
        line(f"{drafts}, {verified} verified{more}")
        for verdict in _ranked(written):
            _print_verdict(verdict, line, full=show_drafts)
    line("")
    stages = "  ".join(f"{name} {seconds:.2f}" for name, seconds in answer.timings.items())
    line(f"Seconds  {stages.replace('_', ' ')}")
    for role, u in answer.usage.items():
        line(f"Tokens   {role}: {u.prefilled} prefilled, {u.reused} reused, {u.decoded} decoded")


def _print_verdict(verdict: Verdict, line: Callable[[str], None], *, full: bool) -> None:
    draft, scores = verdict.draft, verdict.scores
    if verdict.verified:
        assert scores.self_containment is not None and scores.self_reflection is not None
        figures = (
            f"{scores.total:7.2f} = {scores.draft:.2f} draft {scores.self_containment:+.2f} "
            f"self-containment {scores.self_reflection:+.2f} self-reflection"
        )
    else:
        figures = f"      -   {scores.draft:.2f} draft, not verified"
    said = "does not say" if draft.unknown else clean(draft.answer)
    line(f"  {figures}  {said}")
    if full:
        line(f"          {clean(draft.rationale)}")
        for passage in draft.subset.passages:
            line(f"          from {clean(_short(passage.document))}: {clean(passage.title)}")


def _ranked(verdicts: Sequence[Verdict]) -> list[Verdict]:
    def rank(v: Verdict) -> tuple[bool, bool, float]:
        return v.verified, not v.draft.unknown, v.scores.total if v.verified else v.scores.draft

    return sorted(verdicts, key=rank, reverse=True)


def _short(document: str) -> str:
    """Return a document's name relative to the current folder where it lies below it."""
    try:
        return str(Path(document).relative_to(Path.cwd()))
    except ValueError:
        return document


def clean(text: str) -> str:
    """Return text on one line without control characters, which a document could hide in it."""
    return spaced(text).strip()


def spaced(text: str) -> str:
    """Return text with single spaces for whitespace and control characters."""
    return re.sub(" +", " ", "".join(c if c.isprintable() else " " for c in text))
