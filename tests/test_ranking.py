from __future__ import annotations

import argparse
import json
import math

import numpy as np
import pytest
from index_fakes import HashEmbedder, run_index

from specrag_native.cli import eval_retrieval
from specrag_native.errors import DocumentError
from specrag_native.evaluation.ranking import (
    Judged,
    gains,
    mean_scores,
    ndcg,
    read_judged,
    recall,
    reciprocal_rank,
)
from specrag_native.types import Hit, Passage


def hit(document, text=""):
    return Hit(Passage("1", document, "", text), 1.0, np.zeros(2, np.float32))


def test_metrics_of_a_known_ranking():
    right = [False, True, False, True]
    assert recall(right, 3, 4) == pytest.approx(2 / 3)
    assert reciprocal_rank(right, 10) == 0.5 and reciprocal_rank(right, 1) == 0.0
    found = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(right, 3, 10) == pytest.approx(found / ideal)
    assert ndcg([True] * 12, 12, 10) == pytest.approx(1.0)
    assert ndcg([], 0, 10) == 0.0 and recall([], 0, 10) == 0.0


def test_a_document_counts_once_however_many_passages_it_has():
    question = Judged("q", "?", frozenset({"b"}), ())
    found = [hit("f#a"), hit("f#a"), hit("f#b"), hit("f#b")]
    assert gains(question, found, judgement="relevance") == [False, True]


def test_answers_are_looked_for_in_passages_as_whole_words():
    question = Judged("q", "?", frozenset(), ("Ada", "B. C."))
    found = [hit("x", "Canada"), hit("x", "It was ada!"), hit("x", "by b c himself")]
    assert gains(question, found, judgement="answers") == [False, True, True]
    scores = mean_scores([(question, found)], judgement="answers")
    assert (scores.recall_1, scores.recall_5, scores.mrr_10) == (0.0, 1.0, 0.5)


def test_no_questions_give_zeros():
    assert mean_scores([], judgement="answers").questions == 0


@pytest.fixture
def question_set(tmp_path):
    rows = [
        {
            "id": "1",
            "question": "Do bees make honey?",
            "answers": ["honey"],
            "passages": [{"id": "r1", "relevant": True}, {"id": "r2", "relevant": None}],
        },
        {"id": "2", "question": "Unjudged?", "answers": [], "passages": []},
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_questions_that_cannot_be_judged_are_left_out(question_set):
    (judged,) = read_judged(question_set, judgement="relevance")
    assert judged.relevant == {"r1"} and judged.answers == ("honey",)
    assert len(read_judged(question_set, judgement="answers")) == 1


@pytest.mark.parametrize("content", ["{", '{"id": 1}', "[1]", '{"id": "1", "question": "q"}'])
def test_a_file_that_is_no_question_set_is_refused(tmp_path, content):
    path = tmp_path / "q.jsonl"
    path.write_text(content)
    with pytest.raises(DocumentError):
        read_judged(path, judgement="relevance")
    with pytest.raises(DocumentError, match="no question set at"):
        read_judged(tmp_path / "missing.jsonl", judgement="relevance")


def test_the_command_measures_every_ranking_in_one_run(tmp_path, question_set, monkeypatch, capsys):
    docs = tmp_path / "docs"
    docs.mkdir()
    rows = [{"id": "r1", "text": "Bees make honey."}, {"id": "r2", "text": "Rivers run."}]
    (docs / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    run_index(docs, tmp_path / "index")
    monkeypatch.setattr(eval_retrieval, "open_embedder", lambda args: HashEmbedder())
    parser = argparse.ArgumentParser()
    eval_retrieval.add_parser(parser.add_subparsers())
    line = ["eval-retrieval", str(question_set), "--index", str(tmp_path / "index")]
    args = parser.parse_args([*line, "--json"])
    assert args.run(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [r["ranking"] for r in printed["results"]] == ["words", "dense", "hybrid"]
    assert all(r["ndcg_10"] == 1.0 and r["questions"] == 1 for r in printed["results"])
    args = parser.parse_args(line)
    assert args.run(args) == 0
    assert "nDCG@10" in capsys.readouterr().out
