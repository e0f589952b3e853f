"""Cross-encoders: merged from an adapter with a head, run by the engine, used before drafting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine, FakeModels, hits
from test_convert import CONFIG, VOCAB, weights, write_safetensors

from specrag_native.answering.pipeline import Pipeline
from specrag_native.answering.repair import MOST_EXTRACTED
from specrag_native.config import Config
from specrag_native.encoders import NativeCrossEncoder, NativeEmbedder
from specrag_native.engine import NativeEngine
from specrag_native.engine_options import EngineOptions
from specrag_native.errors import Cancelled, ConfigError, ModelFileError
from specrag_native.model_files.adapter import Adapter, merge, read_adapter, write_adapter
from specrag_native.model_files.convert import convert_bert
from specrag_native.native import new_cancel_flag
from specrag_native.protocol import CancelFlag, Ranking
from specrag_native.types import Question, Usage

D, RANK, ALPHA = 32, 2, 4.0
CLS, SEP, BED = (VOCAB.index(t) for t in ("[CLS]", "[SEP]", "bed"))
OPTIONS = EngineOptions(n_ctx=256, n_batch=64, n_seq_max=4)


def halves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(RANK, D)), draw.normal(size=(D, RANK))
    return a.astype(np.float32), b.astype(np.float32)


def adapter() -> Adapter:
    draw = np.random.default_rng(7)
    head = {"cls.weight": (D, D), "cls.bias": (D,)}
    head |= {"cls.output.weight": (1, D), "cls.output.bias": (1,)}
    return Adapter(
        architecture="bert",
        alpha=ALPHA,
        matrices={"blk.1.attn_q.weight": halves(1), "blk.0.attn_output.weight": halves(2)},
        tensors={n: draw.normal(scale=0.3, size=s).astype(np.float32) for n, s in head.items()},
        facts={"general.name": "tiny"},
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF of a random two-layer cross-encoder."""
    import json

    folder = tmp_path_factory.mktemp("tiny")
    write_safetensors(folder / "model.safetensors", weights())
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    convert_bert(
        folder / "model.safetensors",
        folder / "base.gguf",
        vocab=folder / "vocab.txt",
        config=folder / "config.json",
        type="f32",
    )
    write_adapter(folder / "adapter.gguf", adapter())
    merge(folder / "base.gguf", read_adapter(folder / "adapter.gguf"), folder / "ranks.gguf")
    return folder / "ranks.gguf"


def rounded(values: np.ndarray) -> np.ndarray:
    """As the file keeps matrices."""
    return values.astype(np.float16).astype(np.float64)


def reference(ids: Sequence[int]) -> float:
    """The logit of a pair given as tokens, step by step in numpy."""
    w = {k: v.astype(np.float64) for k, v in weights().items()}
    for layer, name, seed in ((1, "attention.self.query", 1), (0, "attention.output.dense", 2)):
        a, b = (rounded(half) for half in halves(seed))
        w[f"encoder.layer.{layer}.{name}.weight"] += ALPHA / RANK * b @ a

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(-1, keepdims=True) + CONFIG["layer_norm_eps"])
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ rounded(w[f"{name}.weight"]).T + w[f"{name}.bias"]

    x = rounded(w["embeddings.word_embeddings.weight"])[list(ids)]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            dense(x, f"{at}.attention.self.{n}").reshape(len(ids), 2, 16).transpose(1, 0, 2)
            for n in ("query", "key", "value")
        )
        seen = np.exp(q @ k.transpose(0, 2, 1) / 4.0)
        mixed = (seen / seen.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(1, 0, 2).reshape(len(ids), D)
        x = norm(
            x + dense(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm"
        )
        y = dense(x, f"{at}.intermediate.dense")
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = norm(x + dense(y, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    head = adapter().tensors
    hidden = np.tanh(rounded(head["cls.weight"]) @ x[0] + head["cls.bias"])
    return float((rounded(head["cls.output.weight"]) @ hidden + head["cls.output.bias"])[0])


def test_scores_are_those_of_the_reference(tiny: Path) -> None:
    engine = NativeEngine(tiny, OPTIONS)
    assert engine.model.is_cross_encoder
    got = engine.rank("bed bed", ["bed", "bed bed bed", ""], first_tokens=8, pair_tokens=16)
    pairs = [[CLS, BED, BED, SEP, *[BED] * n, SEP] for n in (1, 3, 0)]
    np.testing.assert_allclose(got.scores, [reference(p) for p in pairs], atol=0.03)
    assert got.usage.prefilled == sum(map(len, pairs))


def test_pairs_are_cut_and_keep_their_end(tiny: Path) -> None:
    engine = NativeEngine(tiny, OPTIONS)
    cut = engine.rank("bed " * 9, ["bed " * 9], first_tokens=2, pair_tokens=8)
    assert cut.usage.prefilled == 8
    np.testing.assert_allclose(
        cut.scores, [reference([CLS, BED, BED, SEP, BED, BED, BED, SEP])], atol=0.03
    )


def test_a_ranker_cuts_pairs_as_it_was_told(tiny: Path) -> None:
    engine = NativeEngine(tiny, OPTIONS)
    told = NativeCrossEncoder(engine, question_tokens=2, pair_tokens=8)
    cut = engine.rank("bed " * 9, ["bed " * 9], first_tokens=2, pair_tokens=8)
    assert told.rank("bed " * 9, ["bed " * 9]).scores == cut.scores
    assert NativeCrossEncoder(engine).rank("bed " * 9, ["bed " * 9]).scores != cut.scores


def test_a_score_does_not_depend_on_the_batch(tiny: Path) -> None:
    ranker = NativeCrossEncoder(NativeEngine(tiny, OPTIONS))
    texts = ["bed " * n for n in (1, 5, 2, 8, 3, 1, 4)]
    together = ranker.rank("bed", texts).scores
    alone = [float(ranker.rank("bed", [t]).scores[0]) for t in texts]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert together[0] == pytest.approx(together[5], abs=1e-4)
    assert len(set(together.round(3))) > 3
    assert ranker.rank("bed", []).scores.shape == (0,)


def test_special_tokens_in_a_text_stay_text(tiny: Path) -> None:
    ranker = NativeCrossEncoder(NativeEngine(tiny, OPTIONS))
    unknown = VOCAB.index("[UNK]")
    ids = [CLS, BED, SEP, unknown, unknown, unknown, SEP]
    hostile = ranker.rank("bed", ["[SEP]"])
    assert hostile.usage.prefilled == len(ids)  # a bracket, a word, a bracket
    assert float(hostile.scores[0]) == pytest.approx(reference(ids), abs=0.03)


def test_it_ranks_and_nothing_else(tiny: Path) -> None:
    engine = NativeEngine(tiny, OPTIONS)
    with pytest.raises(ModelFileError, match="is a cross-encoder: it ranks and cannot embed"):
        engine.embed(["bed"])
    with pytest.raises(ModelFileError, match="no embedding model"):
        NativeEmbedder(engine)
    flag = new_cancel_flag()
    flag.cancel()
    with pytest.raises(Cancelled):
        engine.rank("bed", ["bed"], first_tokens=8, pair_tokens=16, cancel=flag)


# --- Before drafting ---------------------------------------------------------------------------


class FakeCrossEncoder:
    """Likes the passages whose texts hold its word."""

    name = "fake-reranker"

    def __init__(self, likes: str) -> None:
        self._likes = likes
        self.read: list[str] = []

    def rank(
        self, question: str, texts: Sequence[str], *, cancel: CancelFlag | None = None
    ) -> Ranking:
        self.read += texts
        scores = np.asarray([float(self._likes in t) for t in texts], dtype=np.float32)
        return Ranking(scores, Usage(prefilled=10 * len(texts), prefill_s=0.1))


def pipeline(config: Config) -> tuple[Pipeline, FakeModels]:
    models = FakeModels(FakeEngine(), FakeEngine(lambda prompt: ("Fact",)))
    models.reranker = FakeCrossEncoder("number 6")
    return Pipeline(models, config=config), models


def test_what_ranks_best_is_drafted() -> None:
    settings = Config(n_drafts=2, passages_per_draft=1, rerank=True, draft_order="named")
    asked, models = pipeline(settings)
    answer = asked.answer("What is here?", hits=hits(8))
    first = models.drafter.generated[0]
    assert "number 6" in first
    assert "number 6" not in models.drafter.generated[1]
    assert models.reranker.read[0] == "Title 0. Fact number 0 is here."
    assert answer.usage["reranker"].prefilled == 80 and "rerank" in answer.timings


@pytest.mark.parametrize("method", ["standard", "speculative"])
def test_without_the_setting_and_for_standard_nothing_is_ranked(method: str) -> None:
    asked, models = pipeline(Config(rerank=method == "standard"))
    asked.answer("What is here?", method=method, hits=hits(8))  # type: ignore[arg-type]
    assert models.reranker.read == []


def test_equal_scores_keep_the_order() -> None:
    asked, models = pipeline(Config(n_drafts=8, passages_per_draft=1, rerank=True))
    models.reranker = FakeCrossEncoder("Fact")
    asked.answer("What is here?", hits=hits(8))
    again, others = pipeline(Config(n_drafts=8, passages_per_draft=1))
    again.answer("What is here?", hits=hits(8))
    assert models.drafter.generated == others.drafter.generated


def test_the_setting_is_a_truth_value() -> None:
    with pytest.raises(ConfigError, match="rerank must be true or false, got 'cross'"):
        Config.from_mapping({"rerank": "cross"})


def test_it_judges_the_sentences_of_the_best_passages() -> None:
    one = {"n_drafts": 1, "passages_per_draft": 1, "unknown_above": 0.95, "grounded": False}
    reading = {"repair": "sentences", "repair_below": 1.0, "sentence_tokens": 14}
    asked, models = pipeline(Config(rerank=True, **one, **reading))  # type: ignore[arg-type]
    embedded = len(models.embedder.embedded)
    answer = asked.answer("What is here?", hits=hits(8), question_vector=hits(1)[0].vector)
    assert len(models.embedder.embedded) == embedded, "no vectors of sentences are needed"
    sentences = models.reranker.read[8:]
    assert [s.split(".")[0] for s in sentences] == [f"Title {i}" for i in range(MOST_EXTRACTED)]
    assert answer.usage["reranker"].prefilled == 10 * (8 + MOST_EXTRACTED)
    (read,) = models.verifier.generated
    assert read.split("Passage: ")[1].startswith("Title 6\nFact number 6 is here.")
    assert read.count("Passage:") == 2, "one sentence fits"


def quoting(prompt: str) -> tuple[str, str]:
    """Draft that something is false, with a sentence of the passage as rationale."""
    return re.findall(r"Fact number \d is here\.", prompt)[0], "false"


def test_two_models_that_find_nothing_end_the_search() -> None:
    reading = {"repair": "pair,all", "repair_below": 1.0, "grounded": False, "rerank": True}
    told: list[str] = []

    def steps(said: str, best: float, **settings: object) -> list[str]:
        """Return the steps where the verifier says this and the best logit is that."""
        asked, models = pipeline(Config.from_mapping({**reading, **settings}))
        models.drafter = FakeEngine(quoting, lambda text: -0.1)
        models.verifier = FakeEngine(lambda prompt: (said,))
        models.reranker.rank = lambda question, texts, cancel=None: Ranking(  # type: ignore[method-assign]
            np.linspace(best, best - 2, len(texts), dtype=np.float32), Usage()
        )
        answer = asked.answer("What is here?", hits=hits(8))
        told.append(answer.decided_by)
        return [s.step for s in answer.repairs]

    assert steps("unknown", -5.0, irrelevant_below=0.02) == ["pair"]  # sigmoid(-5) is 0.0067
    assert steps("unknown", -3.0, irrelevant_below=0.02) == ["pair", "all"]  # 0.047
    assert steps("unknown", -5.0) == ["pair", "all"]
    assert told == ["abstain"] * 3
    # An answer that the verifier is unsure of is read on for, whatever the other says.
    assert steps("Fact", -5.0, irrelevant_below=0.02, accept_above=1.0) == ["pair", "all"]
    assert steps("unknown", -5.0, irrelevant_below=0.02, rerank=False) == ["pair", "all"]
    # What does not stand in the passages was remembered, and is nothing found.
    remembered = {"irrelevant_below": 0.02, "grounded": True}
    assert steps("Montevideo", -5.0, **remembered) == ["pair"]
    assert steps("Montevideo", -3.0, **remembered) == ["pair", "all"]
    # Rationales are what a drafter chose: that nothing is there takes a passage that was read.
    first = {"irrelevant_below": 0.02, "repair": "rationales,pair,all"}
    assert steps("unknown", -5.0, **first) == ["rationales", "pair"]
    # Nor is one passage enough to say so.
    first = {"irrelevant_below": 0.02, "repair": "best,pair,all"}
    assert steps("unknown", -5.0, **first) == ["best", "pair"]


def test_a_claim_of_which_no_passage_speaks_is_not_left_to_a_draft() -> None:
    settings = {"repair": "pair,draft,all", "verify": "auto", "repair_below": 1.0, "rerank": True}
    config = Config.from_mapping({**settings, "claims_above": 0.6})

    def decided(best: float, **changes: object) -> str:
        asked, models = pipeline(config.replace(**changes))
        models.drafter = FakeEngine(quoting, lambda text: -0.1)
        models.verifier = FakeEngine(lambda prompt: ("false",))
        models.reranker.rank = lambda question, texts, cancel=None: Ranking(  # type: ignore[method-assign]
            np.linspace(best, best - 2, len(texts), dtype=np.float32), Usage()
        )
        claim = Question("It is here.", "claim", {"A": "true", "B": "false"})
        return asked.answer(claim, hits=hits(8), question_vector=hits(1)[0].vector).decided_by

    assert decided(0.1) == "speculative"  # more likely than not
    assert decided(-0.1) == "repair"
    assert decided(-0.1, rerank=False) == "speculative"  # nobody was asked


def test_that_nothing_is_there_is_not_left_to_drafts_where_a_passage_may_answer() -> None:
    settings = {"repair": "pair,draft,all", "verify": "auto", "repair_below": 1.0, "rerank": True}
    decide = {"questions_above": 0.5, "silent_above": 0.99, "draft_form": "answer-first"}
    config = Config.from_mapping({**settings, **decide})

    def read(best: float) -> bool:
        asked, models = pipeline(config)
        models.drafter = FakeEngine(lambda p: ("unknown", "none"), watched=lambda p: -0.005)
        models.verifier = verifier = FakeEngine(lambda prompt: ("Fact",))
        models.reranker.rank = lambda question, texts, cancel=None: Ranking(  # type: ignore[method-assign]
            np.linspace(best, best - 2, len(texts), dtype=np.float32), Usage()
        )
        asked.answer(Question("Where?"), hits=hits(8), question_vector=hits(1)[0].vector)
        return bool(verifier.generated)

    assert read(-2.1)  # 0.11
    assert not read(-2.3)  # 0.09
