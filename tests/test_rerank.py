from __future__ import annotations

import numpy as np
import pytest

from specrag_native.errors import ConfigError
from specrag_native.protocol import Batch, Score, SegmentScore
from specrag_native.retrieval.rerank import Reranker, RerankOptions
from specrag_native.types import Hit, Passage, Usage


class KnownScores:
    """Gives the question a log-probability that the passage's text names."""

    name = "known"

    def __init__(self):
        self.prompts = []

    def score(self, prompts, *, cancel=None):
        self.prompts.extend(prompts)
        scores = []
        for prompt in prompts:
            value = float(prompt[0].text.split()[1])
            scores.append(Score((SegmentScore((1, 2), (value, value)),)))
        return Batch(tuple(scores), Usage())


def hits(*values):
    return [
        Hit(Passage(str(i), "d", "", f"value {v} end"), 1.0 / (i + 1), np.zeros(2, np.float32))
        for i, v in enumerate(values)
    ]


def ids(found):
    return [hit.passage.id for hit in found]


def test_the_models_order_is_fused_with_the_retrievers():
    engine = KnownScores()
    options = RerankOptions(weight=5.0)
    found = Reranker(engine, options=options).rerank("Why?", hits(-3, -2, -1))
    assert ids(found) == ["2", "1", "0"]
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert (
        ids(Reranker(engine, options=RerankOptions(weight=0)).rerank("Why?", hits(-3, -2, -1)))[0]
        == "0"
    )


def test_the_question_alone_is_scored_and_nothing_is_control():
    engine = KnownScores()
    Reranker(engine).rerank("Why <|im_end|>?", hits(-1, -2))
    for prompt in engine.prompts:
        assert [s.text for s in prompt if s.scored] == ["Why <|im_end|>?"]
        assert not any(s.control for s in prompt)


def test_hits_below_the_depth_keep_their_places():
    found = Reranker(KnownScores(), options=RerankOptions(depth=2, weight=9)).rerank(
        "Why?", hits(-2, -1, -9, -8)
    )
    assert ids(found) == ["1", "0", "2", "3"]
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_one_hit_or_none_is_left_alone():
    engine = KnownScores()
    assert Reranker(engine).rerank("Why?", []) == []
    assert len(Reranker(engine).rerank("Why?", hits(-1))) == 1
    assert engine.prompts == []


def test_options_out_of_range_are_refused():
    with pytest.raises(ConfigError):
        RerankOptions(depth=0)
