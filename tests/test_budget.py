"""What fits into a latency budget, and what the answer says was left out."""

from __future__ import annotations

from typing import Any

import pytest
from test_pipeline import no, pipeline, yes

from specrag_native.budget import Budget, Pace, parse_seconds
from specrag_native.cli.main import main
from specrag_native.config import Config
from specrag_native.errors import ConfigError
from specrag_native.prompts import ABSTAIN_TEXT
from specrag_native.protocol import Batch
from specrag_native.types import Usage
from tests.fakes import FakeEngine, hits


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
    assert "repair" in answer.left_out
    assert answer.answer == "three"
    unknown = FakeEngine(lambda prompt: ("unknown",), no)
    rag, _, _ = pipeline(verifier=unknown)
    assert rag.answer("How many?", hits=hits(8)).answer == ABSTAIN_TEXT


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
