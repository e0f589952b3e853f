"""What fits into a latency budget, and what the answer says was left out."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from test_pipeline import no, pipeline, yes
from test_repair import knows

from specrag_native.answering.budget import Budget, Pace, parse_seconds
from specrag_native.answering.pipeline import OUT_OF_TIME_TEXT, Pipeline
from specrag_native.cli.main import main
from specrag_native.config import Config
from specrag_native.errors import Cancelled, ConfigError
from specrag_native.prompts import ABSTAIN_TEXT
from specrag_native.protocol import Batch
from specrag_native.types import Answer, Usage
from tests.fakes import FakeEngine, FakeModels, SlowEngine, hits


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_pace_follows_the_newest_calls() -> None:
    pace = Pace()
    pace.observe(Usage(prefilled=100, prefill_s=1.0, decoded=20, decode_s=1.0))
    assert (pace.prefill, pace.decode) == (0.01, 0.05)
    pace.observe(Usage(prefilled=100, prefill_s=3.0, decoded=1, decode_s=9.0))
    assert pace.prefill == pytest.approx(0.02)
    assert pace.decode == 0.05  # one token tells nothing


def test_what_fits_shrinks_with_the_time_left() -> None:
    clock = Clock()
    budget = Budget(10.0, {"drafter": Pace(0.01, 0.02)}, now=clock)
    assert budget.drafts(5, tokens=100, decoded=50) == 3  # 2 s each, six seconds for drafts
    assert budget.drafts(5, tokens=100, decoded=50, n_written=1) == 5  # five read, one written
    clock.time += 7.0
    assert budget.left == pytest.approx(3.0)
    assert budget.drafts(5, tokens=100, decoded=50) == 1
    assert budget.fits("verifier", 29) and not budget.fits("verifier", 31)
    clock.time += 7.0
    assert budget.left == 0.0 and not budget.fits("drafter", 1)


def test_without_a_budget_everything_fits() -> None:
    budget = Budget(None, {})
    assert budget.drafts(9, tokens=1e9, decoded=1e9) == 9
    assert budget.fits("verifier", 1e12)
    assert not budget.limited


def test_an_unknown_pace_is_learnt_from_one_draft() -> None:
    rag, drafter, _ = pipeline()
    answer = rag.answer("How many?", hits=hits(8), budget_s=1e6)
    assert len(drafter.generated) == 5 and answer.left_out == ()
    assert answer.answer == "three"
    rag, drafter, _ = pipeline()
    rag._paces["drafter"] = Pace(prefill=1e6)
    answer = rag.answer("How many?", hits=hits(8), budget_s=5.0)
    assert len(drafter.generated) == 2  # the first, and one more that may always be written
    assert answer.left_out[0] == "3 of 5 drafts"


def test_verification_that_does_not_fit_is_left_out_and_the_drafter_decides() -> None:
    rag, _, verifier = pipeline(Config(repair="off"))
    rag._paces["drafter"] = Pace(prefill=1e-9)
    rag._paces["verifier"] = Pace(prefill=1e6)
    answer = rag.answer("How many?", hits=hits(8), budget_s=5.0)
    assert answer.left_out == ("verification",)
    assert verifier.scored == []
    assert answer.answer == "three" and answer.decided_by == "speculative"


def test_repair_that_does_not_fit_is_left_out_and_the_draft_stands() -> None:
    class Slow(FakeEngine):
        def score(self, prompts: Any, *, cancel: Any = None) -> Any:
            batch = super().score(prompts, cancel=cancel)
            return Batch(batch.items, Usage(prefilled=20, prefill_s=100.0))

    rag, _, verifier = pipeline(verifier=Slow(lambda prompt: ("three",), lambda text: -1.0))
    rag._paces["drafter"] = Pace(prefill=1e-9)
    rag._paces["verifier"] = Pace(prefill=5.0)
    answer = rag.answer("How many?", hits=hits(8), budget_s=60.0)
    assert verifier.generated == []
    assert answer.left_out == ("reading the best passages", "reading all passages")
    assert answer.answer == "three"
    unknown = FakeEngine(lambda prompt: ("unknown",), no)
    rag, _, _ = pipeline(verifier=unknown)
    assert rag.answer("How many?", hits=hits(8)).answer == ABSTAIN_TEXT


# --- The hard stop -------------------------------------------------------------------------------

STEP_S = 0.02
BUSY_S = 0.3
"""What a busy machine may add to a bound in seconds."""


@pytest.fixture(scope="module", autouse=True)
def clustering() -> None:
    """Clustering is slow the first time, whatever the budget."""
    pipeline()[0].answer("How many?", hits=hits(8))


def write(prompt: str) -> tuple[str, ...]:
    """Every passage has an answer, that of passage 0 in few words."""
    if "Reply with the answer only" in prompt:
        return ("three",)
    if "Fact number 0 is here." in prompt:
        return ("Fact number 0 is here.", "three")
    return ("Fact " * 200, "four")


def slow(drafter: SlowEngine, verifier: SlowEngine, **settings: Any) -> Pipeline:
    rag = Pipeline(FakeModels(drafter, verifier), config=Config.from_mapping(settings))
    rag._paces["drafter"] = rag._paces["verifier"] = Pace(prefill=1e-9)  # everything seems to fit
    return rag


def quick(write: Any = write) -> SlowEngine:
    return SlowEngine(write, yes, step_s=0.0)


def asked(rag: Pipeline, budget_s: float) -> Answer:
    answer = rag.answer("How many?", hits=hits(8), budget_s=budget_s)
    assert answer.timings["total"] <= budget_s + STEP_S + BUSY_S
    return answer


def test_drafting_is_cut_and_finished_drafts_are_used() -> None:
    verifier = quick()
    answer = asked(slow(SlowEngine(write, yes, step_s=STEP_S), verifier, repair="off"), 0.5)
    assert {v.draft.answer for v in answer.verdicts} == {"three"}
    assert answer.answer == "three" and answer.rationale == "Fact number 0 is here."
    assert f"{5 - len(answer.verdicts)} of 5 drafts" in answer.left_out


def test_verification_is_cut_and_what_was_scored_counts() -> None:
    verifier = SlowEngine(write, yes, step_s=STEP_S, steps_per_prompt=5)
    drafter = quick(knows(*range(8)))
    answer = asked(slow(drafter, verifier, repair="off"), 0.5)
    assert answer.left_out == ("verification",)
    assert len(answer.verdicts) == 5
    assert 0 < sum(v.verified for v in answer.verdicts) < 5
    assert answer.decided_by == "speculative"


def test_repair_is_cut_and_the_best_draft_stands() -> None:
    def verifier(step_s: float) -> SlowEngine:
        return SlowEngine(write, no, step_s=step_s, steps_per_prompt=20)

    drafter = quick(lambda p: ("Fact number 0 is here.", "three"))
    rag = slow(drafter, verifier(STEP_S), repair="all", abstain_below=0.0)
    answer = asked(rag, 1.0)  # scoring takes 0.8 s, reading as long again
    assert (answer.answer, answer.decided_by) == ("three", "speculative")
    assert answer.left_out == ("reading the best passages", "reading all passages")
    assert [(s.step, s.answer) for s in answer.repairs] == [("subset", "")]


def test_an_answer_read_in_part_is_kept_when_the_rest_is_cut() -> None:
    calls = SlowEngine(lambda p: ("fact",), no, step_s=STEP_S, steps_per_prompt=20)
    drafter = quick(lambda p: ("Nothing.", "unknown"))
    answer = asked(slow(drafter, calls, repair="all", accept_above=0.9), 0.6)
    assert (answer.answer, answer.decided_by) == ("fact", "repair")
    assert answer.left_out == ("reading all passages",)


def test_short_passages_are_drafted_where_reading_them_does_not_fit() -> None:
    rag, drafter, verifier = pipeline(Config(repair="short,draft,subset"))
    answer = rag.answer("How many?", hits=hits(8))
    assert drafter.generated == [] and len(verifier.generated) == 1
    rag._paces["drafter"] = Pace(prefill=1e-9)
    rag._paces["verifier"] = Pace(prefill=1e6)
    answer = rag.answer("How many?", hits=hits(8), budget_s=5.0)
    assert len(drafter.generated) == 5 and len(verifier.generated) == 1
    assert answer.answer == "three" and "reading short passages" in answer.left_out


@pytest.mark.parametrize("method", ["speculative", "standard", "drafter"])
def test_when_nothing_was_found_in_time_the_documents_are_not_blamed(method: Any) -> None:
    slowest = SlowEngine(write, no, step_s=STEP_S, steps_per_prompt=100)
    rag = slow(slowest, slowest)
    answer = rag.answer("How many?", hits=hits(8), budget_s=0.2, method=method)
    assert answer.timings["total"] <= 0.2 + STEP_S + BUSY_S
    assert (answer.answer, answer.decided_by) == (OUT_OF_TIME_TEXT, "abstain")
    assert answer.left_out


def test_the_caller_still_cancels_under_a_budget() -> None:
    class Flag:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    flag = Flag()
    slowest = SlowEngine(write, no, step_s=STEP_S, steps_per_prompt=1000)
    threading.Timer(0.2, flag.cancel).start()
    begin = time.perf_counter()
    with pytest.raises(Cancelled):
        slow(slowest, slowest).answer("How many?", hits=hits(8), budget_s=60.0, cancel=flag)
    assert time.perf_counter() - begin < 2.0


def test_no_deadline_is_watched_after_the_answer() -> None:
    rag = slow(quick(), quick())
    rag.answer("How many?", hits=hits(8), budget_s=60.0)
    for thread in threading.enumerate():
        if thread.name == "specrag-deadline":
            thread.join(timeout=5.0)
            assert not thread.is_alive()


def test_no_budget_changes_nothing() -> None:
    with_, _, _ = pipeline()
    without, _, _ = pipeline()
    a = with_.answer("How many?", hits=hits(8), budget_s=1e9)
    b = without.answer("How many?", hits=hits(8))
    assert (a.answer, a.confidence, a.decided_by) == (b.answer, b.confidence, b.decided_by)
    assert b.left_out == () and yes("Yes") == -0.05


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5), ("5s", 5), ("500ms", 0.5), ("2m", 120), (" 1.5 s", 1.5)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "5h", "-1s", "0", "nan", "inf", "5mm"])
def test_a_wrong_time_is_one_clear_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="a time"):
        parse_seconds(text)
    if not text.startswith("-"):
        assert main(["ask", "Why?", "--budget", text]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_budget_of_nothing_is_refused() -> None:
    rag, _, _ = pipeline()
    with pytest.raises(ConfigError, match="more than 0"):
        rag.answer("How many?", hits=hits(8), budget_s=0.0)


def test_sentences_that_could_not_be_read_are_not_looked_for() -> None:
    drafter, verifier = FakeEngine(knows(), yes), FakeEngine(logprob=yes)
    models = FakeModels(drafter, verifier)
    rag = Pipeline(models, config=Config(repair="sentences", repair_below=1.0))
    rag._paces["drafter"] = Pace(prefill=1e-9)
    rag._paces["verifier"] = Pace(prefill=1e6)
    answer = rag.answer("How many?", hits=hits(8), question_vector=hits(1)[0].vector, budget_s=5.0)
    assert "reading the best sentences" in answer.left_out
    assert models.embedder.embedded == []
