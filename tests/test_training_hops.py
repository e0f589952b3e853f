"""Groups for a hop ranker: marked, made-up and of questions alone, and a fit that goes on."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_training_ranker import base, fit  # noqa: F401  # base is a fixture

from specrag_native.answering.hops import question_with
from specrag_native.errors import ConfigError, UserError
from specrag_native.evaluation.datasets import Example
from specrag_native.training.asked_alone import made_up
from specrag_native.training.bridges import Bridges, Titles
from specrag_native.training.data import DataOptions, Source
from specrag_native.training.hop_options import HopOptions
from specrag_native.training.hops import BRIDGE, MADE_UP, make_hop_groups
from specrag_native.training.pairs import Group, read_groups, write_groups
from specrag_native.types import Passage, Question

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
BOOK = Passage("b", "b", "The Tin Harp (novel)", "The Tin Harp was written by Ada Quill in 1901.")
AUTHOR = Passage("a", "a", "Ada Quill", "Ada Quill was born in Port Merrow.")
TOWNS = [Passage(f"t{i}", "t", f"Town {i}", f"Town {i} is a town of {i} people.") for i in range(8)]


def ask(
    id: str, question: str, answer: str, right: list[Passage], others: list[Passage]
) -> Example:
    return Example(
        id=id,
        question=Question(question),
        answers=(answer,),
        passages=(*right, *others),
        relevant=frozenset(p.id for p in right),
        dataset="made",
    )


def as_row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "question": example.question.text,
        "answers": list(example.answers),
        "task": "qa",
        "passages": [
            {"id": p.id, "title": p.title, "text": p.text, "relevant": p.id in example.relevant}
            for p in example.passages
        ],
    }


BORN = ask("born", "Where was Ada Quill born?", "Port Merrow", [AUTHOR], [])


def test_a_bridge_asks_about_what_only_another_passage_names() -> None:
    bridges = Bridges([BOOK, AUTHOR, *TOWNS], [BORN])
    (bridge,) = bridges.of(BORN, 3, random.Random(1))
    assert bridge.first == BOOK
    assert "Ada Quill" not in bridge.question and "The Tin Harp" in bridge.question
    assert bridge.question.startswith("Where was ") and bridge.question.endswith(" born?")
    assert list(bridges.of(BORN, 0, random.Random(1))) == []


@pytest.mark.parametrize(
    "example",
    [
        ask("x", "Where was the author born?", "Port Merrow", [AUTHOR], []),  # names no title
        ask("x", "Where was Ada Quillson born?", "Port Merrow", [AUTHOR], []),  # another word
        ask("x", "How many people has Town 1?", "1", [TOWNS[1]], []),  # nothing else names it
        ask("x", "Where was Ada Quill born?", "Port Merrow", [], [AUTHOR]),  # nothing is marked
    ],
)
def test_other_questions_have_no_bridge(example: Example) -> None:
    bridges = Bridges([BOOK, AUTHOR, *TOWNS], [example])
    assert list(bridges.of(example, 3, random.Random(1))) == []


def test_titles_are_found_as_words_of_their_own_and_not_in_their_own_passage() -> None:
    titles = Titles(["Ada Quill", "The Tin Harp", "Tin", "Ada", "Harp was"])
    assert titles.named_in(BOOK) == {"Ada Quill": BOOK.text.index("Ada"), "Harp was": 8}
    assert titles.named_in(AUTHOR) == {}
    cut = Passage("c", "c", "Other", "Ada Quillson met Ada Quill.")
    assert titles.named_in(cut) == {"Ada Quill": 17}


def test_made_up_questions_say_what_they_take() -> None:
    titles = [f"Title {i}" for i in range(300)]
    asked = list(made_up(titles, 200, random.Random(3)))
    assert len(asked) == 200 == len({a.question for a in asked})
    assert 0.4 < sum(a.several for a in asked) / 200 < 0.7
    assert all("{" not in a.question and "Title " in a.question for a in asked)
    for one in asked:
        if "older" in one.question or "first" in one.question or " of the " in one.question:
            assert one.several, one.question
    assert made_up(titles, 5, random.Random(3)) is not None
    assert len(list(made_up(titles[:2], 9, random.Random(3)))) == 2


def written(tmp_path: Path, examples: list[Example], **hops: int) -> list[Group]:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(as_row(e)) + "\n" for e in examples), encoding="utf-8")
    out = tmp_path / "groups.jsonl"
    options = DataOptions(sources=(Source(path),), held_back=0.0)
    counts = make_hop_groups(options, out, hops=HopOptions(**{"made_up": 0, **hops}))
    groups = read_groups(out)
    assert len(groups) == sum(counts.examples.values())
    return groups


def test_of_marked_passages_each_is_first_and_the_others_complete_it(tmp_path: Path) -> None:
    question = "Where was the author of The Tin Harp born?"
    several = ask("m", question, "Port Merrow", [BOOK, AUTHOR], TOWNS)
    groups = written(tmp_path, [several])
    book, author = "The Tin Harp (novel). " + BOOK.text, "Ada Quill. " + AUTHOR.text
    by_question = {g.question: g for g in groups}
    assert by_question[question_with(question, BOOK)].right == (author,)
    assert by_question[question_with(question, AUTHOR)].right == (book,)
    (wrong,) = (g for g in groups if set(g.right) == {book, author})
    assert wrong.question.startswith(f"{question} Town ") and len(wrong.others) == 7
    assert by_question[question] == Group("set", question, ("",), ())
    assert len(groups) == 4


def test_of_one_marked_passage_nothing_completes_it_or_it_completes_another(tmp_path: Path) -> None:
    examples = [
        ask(f"q{i}", f"How many people has Town {i} by the sea?", f"{i} people", [t], [])
        for i, t in enumerate(TOWNS)
    ]
    groups = written(tmp_path, examples, bridges=0)
    alone = [g for g in groups if "" in g.others]
    assert [g.right for g in alone] == [()] * 8
    seen = set()
    for group in groups:
        if group in alone:
            continue
        number = group.question.split("Town ")[1].split(" ")[0]
        own = f"Town {number}. {TOWNS[int(number)].text}"
        is_first = group.question.endswith(own)
        seen.add(is_first)
        assert group.right == (() if is_first else (own,))
        assert len(group.others) >= 3 and not any(f"{number} people" in t for t in group.others)
    assert seen == {True, False}


def test_bridges_and_made_up_questions_are_groups_too(tmp_path: Path) -> None:
    town = Passage("p", "p", "Port Merrow", "Who was born in Port Merrow, a town by the sea?")
    said = ("played a harp", "drank from a tin", "was born in May", "has written much")
    writers = [
        Passage(f"w{i}", "w", f"Writer {i}", f"Writer {i} {what}.") for i, what in enumerate(said)
    ]
    others = [town, *writers, *TOWNS]
    examples = [BORN, ask("z", "What is The Tin Harp?", "a novel", [BOOK], others)]
    groups = written(tmp_path, examples, made_up=6)
    (bridge,) = (g for g in groups if g.dataset == BRIDGE)
    assert bridge.question.endswith("The Tin Harp (novel). " + BOOK.text)
    assert bridge.right == ("Ada Quill. " + AUTHOR.text,)
    # Of those that share words with it, the town holds the answer.
    assert len(bridge.others) >= 3
    assert set(bridge.others) <= {f"{w.title}. {w.text}" for w in writers}
    asked = [g for g in groups if g.dataset == MADE_UP]
    assert len(asked) == 6 and all({*g.right, *g.others} == {""} for g in asked)


def test_the_same_sets_and_seed_give_the_same_groups(tmp_path: Path) -> None:
    examples = [BORN, ask("z", "What is The Tin Harp?", "a novel", [BOOK], TOWNS)]
    assert written(tmp_path, examples, made_up=9) == written(tmp_path, examples, made_up=9)


def test_sets_that_mark_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no group came out"):
        written(tmp_path, [ask("x", "Where?", "there", [], [AUTHOR, BOOK])])


def test_numbers_below_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="bridges must be at least 0, got -1"):
        HopOptions(bridges=-1)


def test_the_loss_of_groups_of_one_kind_is_that_of_each_text_by_itself() -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")

    from specrag_native.training.rank_fit import group_loss

    groups = [Group("made", "q", (), ("a", "b")), Group("made", "q", ("",), ())]
    scores = torch.tensor([0.0, 1.0, 2.0])
    none = 0.5 * (np.log(2) + np.log1p(np.e)) / 2
    one = 0.5 * np.log1p(np.exp(-2))
    assert float(group_loss(scores, groups)) == pytest.approx((none + one) / 2)


def test_a_fit_goes_on_from_a_cross_encoder_and_tells_questions(
    base: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    from specrag_native.encoders import NativeCrossEncoder
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions
    from specrag_native.model_files.adapter import build

    ranker = fit(base, tmp_path / "ranker", epochs=4)
    ranker.run()
    ranker.export(tmp_path / "adapter.gguf", name="made")
    build(base, tmp_path / "adapter.gguf", tmp_path / "made.gguf", type="F16", name="made")
    held = [Group("made", f"what is {w}", (f"{w} is {w}",), ("king is king",)) for w in ("moon",)]
    further = fit(tmp_path / "made.gguf", tmp_path / "hops", question_tokens=8, pair_tokens=24)
    assert further.check(held).loss == pytest.approx(ranker.check(held).loss, abs=0.02)

    from specrag_native.training.rank_fit import RankFit
    from specrag_native.training.rank_options import RankFitOptions

    several = [Group("made", f"what is {w} is", ("",), ()) for w in ("moon", "boat", "harp")]
    one = [Group("made", f"what is {w}", (), ("",)) for w in ("red", "blue", "king")]
    options = RankFitOptions(
        rank=4, alpha=8, groups=6, warmup=4, rate=0.01, epochs=40, question_tokens=8, pair_tokens=24
    )
    alone = RankFit(tmp_path / "made.gguf", [*several, *one], tmp_path / "alone", options)
    alone.run()
    found = alone.check([*several, *one])
    assert found.told == 1.0 and found.first_right is None
    alone.export(tmp_path / "alone-adapter.gguf", name="alone")
    build(
        tmp_path / "made.gguf",
        tmp_path / "alone-adapter.gguf",
        tmp_path / "alone.gguf",
        type="F16",
        name="alone",
    )
    engine = NativeEngine(
        tmp_path / "alone.gguf", EngineOptions(n_ctx=256, n_batch=64, n_seq_max=4)
    )
    hop_ranker = NativeCrossEncoder(engine, question_tokens=8, pair_tokens=24)
    for group in (*several, *one):
        (score,) = hop_ranker.rank(group.question, [""]).scores
        assert (score > 0) == bool(group.right)


def test_tokens_that_leave_no_room_for_a_text_are_refused() -> None:
    from specrag_native.training.rank_options import RankFitOptions

    with pytest.raises(ConfigError, match="got 190 and 192"):
        RankFitOptions(question_tokens=190)


def test_both_commands_lead_to_a_model_that_the_engine_runs(
    base: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in ("torch", "peft", "transformers"):
        pytest.importorskip(module, reason="the train extra is not installed")
    from specrag_native.cli.main import main
    from specrag_native.encoders import NativeCrossEncoder
    from specrag_native.engine import NativeEngine
    from specrag_native.engine_options import EngineOptions

    several = ask("m", "Where was its author born?", "Port Merrow", [BOOK, AUTHOR], TOWNS)
    rows = [*(as_row(dataclasses.replace(several, id=f"m{i}")) for i in range(4)), as_row(BORN)]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    groups, out = tmp_path / "groups.jsonl", tmp_path / "fit"
    made = ["train", "hops", str(path), "--out", str(groups), "--held-back", "0", "--made-up", "3"]
    assert main(made) == 0
    assert "20 groups, 0 held back" in capsys.readouterr().out
    held = read_groups(groups)[:5]
    write_groups(tmp_path / "groups-check.jsonl", held)
    learnt = ["train", "ranker", str(groups), "--base", str(base), "--out", str(out)]
    sizes = ["--rank", "4", "--groups", "6", "--question-tokens", "24", "--pair-tokens", "48"]
    assert main([*learnt, *sizes, "--name", "mine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["steps"] == 4
        and found["groups"] == 5
        and found["model"] == str(out / "mine-f16.gguf")
    )
    losses = (out / "loss.jsonl").read_text().splitlines()
    assert [json.loads(x)["examples"] for x in losses] == [6, 6, 6, 2]
    options = EngineOptions(n_ctx=256, n_batch=64, n_seq_max=4)
    ranker = NativeCrossEncoder(NativeEngine(out / "mine-f16.gguf", options))
    assert len(ranker.rank("what is red", ["red is red", ""]).scores) == 2
    assert main([*learnt, *sizes, "--groups", "7"]) == 2
    assert "holds a fit with another options" in capsys.readouterr().err
