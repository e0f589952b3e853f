from __future__ import annotations

import random
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_fakes import HashEmbedder, run_index

from specrag_native.errors import ConfigError, QuestionError
from specrag_native.retrieval import vector_index
from specrag_native.retrieval.fulltext import highlight_spans, match_query, search_text, terms
from specrag_native.retrieval.hybrid import RetrievalOptions, fuse
from specrag_native.retrieval.index import Index
from specrag_native.retrieval.store_writer import open_writer

TOPICS = ["rivers flow", "bees hum", "clouds drift", "stones lie", "kings rule", "ships sail"]


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "docs"
    made.mkdir()
    for i, topic in enumerate(TOPICS):
        (made / f"{i}.txt").write_text(f"Here {topic} in country number {i}.")
    return made


@pytest.fixture
def index(folder, tmp_path):
    run_index(folder, tmp_path / "index")
    with Index.open(tmp_path / "index") as opened:
        yield opened


def texts(hits):
    return [hit.passage.text for hit in hits]


def test_hits_come_best_first_with_their_unit_vectors(index):
    hits = index.retriever(HashEmbedder()).search("Where do bees hum?", 3)
    assert "bees" in hits[0].passage.text and len(hits) == 3
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    for hit in hits:
        assert hit.vector.dtype == np.float32 and hit.vector.shape == (32,)
        assert np.linalg.norm(hit.vector) == pytest.approx(1, abs=1e-6)


def test_more_passages_than_there_are_gives_all(index):
    assert len(index.retriever(HashEmbedder()).search("rivers", 50)) == len(TOPICS)


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(index, question):
    with pytest.raises(QuestionError, match="empty"):
        index.retriever(HashEmbedder()).search(question)


def test_options_out_of_range_are_refused(index):
    with pytest.raises(ConfigError, match="at least 1"):
        index.retriever(HashEmbedder()).search("bees", 0)
    for values in ({"mode": "magic"}, {"pool": 0}, {"rrf_k": 0}):
        with pytest.raises(ConfigError):
            RetrievalOptions(**values)


@pytest.mark.parametrize("mode", ["dense", "words", "hybrid"])
def test_every_mode_finds_the_passage(index, mode):
    retriever = index.retriever(HashEmbedder(), options=RetrievalOptions(mode=mode))
    assert "ships" in retriever.search("the ships sail", 1)[0].passage.text


HOSTILE = [
    '"',
    "'",
    '" OR 1 --',
    "NEAR(a b)",
    "title:bees",
    "bees*",
    "^bees",
    "a AND NOT b",
    "(((",
    "-bees",
    "bees\x00hum",
    "\ud800",
    "\u4e2d\u6587",
    "?!",
    "{bees}",
    "bees" * 1000,
    "a " * 5000,
]


@pytest.mark.parametrize("question", HOSTILE)
def test_a_question_is_never_parsed_as_a_query(index, question):
    retriever = index.retriever(HashEmbedder(), options=RetrievalOptions(mode="words"))
    retriever.search(question, 3)


@given(question=st.text(min_size=1, max_size=60))
def test_any_text_makes_a_query_of_quoted_words(question):
    query = match_query(terms(question))
    assert query.count('"') == 2 * len(terms(question))


def test_stop_words_are_left_out_unless_nothing_else_is_asked():
    assert terms("Where is the River and the river?") == ["river"]
    assert terms("who is who") == ["who", "is"]


def test_fusion_adds_weighted_reciprocal_ranks():
    fused = dict(fuse([(1.0, [7, 8]), (2.0, [8])], k=60))
    assert fused == pytest.approx({7: 1 / 61, 8: 1 / 62 + 2 / 61})
    assert [key for key, _ in fuse([(1.0, [7, 8]), (2.0, [8])], k=60)] == [8, 7]
    assert [key for key, _ in fuse([(1.0, [9, 3]), (1.0, [3, 9])], k=60)] == [3, 9]


def test_near_duplicates_are_left_out(folder, tmp_path):
    (folder / "copy.txt").write_text("Here bees hum in country number 1.")
    run_index(folder, tmp_path / "other")
    with Index.open(tmp_path / "other") as index:
        one = index.retriever(HashEmbedder()).search("bees hum", 7)
        every = index.retriever(
            HashEmbedder(), options=RetrievalOptions(duplicate_cosine=2)
        ).search("bees hum", 7)
    assert sum("bees" in text for text in texts(one)) == 1
    assert sum("bees" in text for text in texts(every)) == 2


def test_threads_may_share_a_retriever(index):
    retriever = index.retriever(HashEmbedder())
    expected = {topic: texts(retriever.search(topic, 3)) for topic in TOPICS}
    failures = []

    def ask(seed):
        for topic in random.Random(seed).choices(TOPICS, k=25):
            if texts(retriever.search(topic, 3)) != expected[topic]:
                failures.append(topic)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_open_retriever_sees_what_is_indexed_later(index, folder):
    retriever = index.retriever(HashEmbedder())
    assert "whales" not in texts(retriever.search("whales dive", 1))[0]
    (folder / "new.txt").write_text("Here whales dive in country number 9.")
    (folder / "0.txt").unlink()
    run_index(folder, index.path)
    assert "whales" in texts(retriever.search("whales dive", 1))[0]
    assert len(retriever.search("country", 20)) == len(TOPICS)
    assert not any("rivers" in text for text in texts(retriever.search("rivers flow", 20)))


def change_without_derived(index, folder):
    """Change the database as a run does that is killed before its last step."""
    (folder / "late.txt").write_text("Here geese fly in country number 8.")
    (folder / "1.txt").unlink()
    from specrag_native.retrieval import store_writer

    original = store_writer.StoreWriter.finish
    store_writer.StoreWriter.finish = lambda self: None
    try:
        run_index(folder, index.path)
    finally:
        store_writer.StoreWriter.finish = original


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_a_derived_index_that_is_behind_is_patched(index, folder, mode):
    change_without_derived(index, folder)
    retriever = index.retriever(HashEmbedder(), options=RetrievalOptions(mode=mode))
    assert "geese" in texts(retriever.search("geese fly", 1))[0]
    found = texts(retriever.search("bees hum", 20))
    assert len(found) == len(TOPICS) and not any("bees" in text for text in found)


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "other width"])
def test_a_derived_index_that_cannot_be_read_is_made_from_the_database(index, damage, caplog):
    import faiss

    (path,) = index.path.glob("vectors-*.faiss")
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "garbage":
        path.write_bytes(b"garbage")
    else:
        faiss.write_index(faiss.IndexFlatIP(3), str(path))
    retriever = index.retriever(HashEmbedder(), options=RetrievalOptions(mode="dense"))
    assert "bees" in texts(retriever.search("bees hum", 1))[0]
    assert path.name in caplog.text


def large(tmp_path, monkeypatch, n, threshold):
    """An index that is above the size from which inverted files are used."""
    monkeypatch.setattr(vector_index, "FLAT_UPTO", threshold)
    folder = tmp_path / "large"
    folder.mkdir()
    rng = random.Random(1)
    words = [f"w{i}" for i in range(400)]
    for i in range(n):
        (folder / f"{i:04}.txt").write_text(" ".join(rng.choices(words, k=12)))
    run_index(folder, tmp_path / "big")
    return folder, tmp_path / "big"


def test_a_large_index_uses_an_inverted_file_and_patches_it(tmp_path, monkeypatch):
    import faiss

    folder, index_dir = large(tmp_path, monkeypatch, n=300, threshold=200)
    (path,) = index_dir.glob("vectors-*.faiss")
    first = faiss.read_index(str(path))
    assert vector_index.is_inverted(first) and first.ntotal == 300
    monkeypatch.setattr("specrag_native.retrieval.store_writer._REBUILD_AFTER", 4)
    for i in range(5):
        (folder / f"{i:04}.txt").unlink()
        (folder / f"new{i}.txt").write_text(f"fresh text number {i} of the folder")
    run_index(folder, index_dir)
    (path,) = index_dir.glob("vectors-*.faiss")
    second = faiss.read_index(str(path))
    assert second.ntotal == 300
    assert np.array_equal(
        first.quantizer.reconstruct_n(0, 64), second.quantizer.reconstruct_n(0, 64)
    ), "the lists were patched, not trained again"
    with Index.open(index_dir) as index:
        retriever = index.retriever(HashEmbedder(), options=RetrievalOptions(mode="dense"))
        assert "fresh" in texts(retriever.search("fresh text number 3 of the folder", 1))[0]


def test_an_inverted_file_finds_nearly_what_a_full_search_finds(tmp_path, monkeypatch):
    _, index_dir = large(tmp_path, monkeypatch, n=600, threshold=200)
    with Index.open(index_dir) as index, index._store.read() as connection:
        ids, vectors = next(vector_index.vectors_after(connection, 0))
        retriever = index.retriever(HashEmbedder())
        retriever.warm()
        loaded = retriever._loaded
        found = 0
        for i in range(0, 600, 20):
            exact = {int(ids[j]) for j in np.argsort(-(vectors @ vectors[i]))[:10]}
            found += len(exact & {key for key, _ in loaded.search(vectors[i], 10)})
    assert found >= 0.9 * 300


def test_stale_derived_files_are_deleted(index, folder):
    (index.path / "vectors-99.faiss.new").write_bytes(b"left by a killed run")
    (folder / "new.txt").write_text("New.")
    run_index(folder, index.path)
    assert len(list(index.path.glob("vectors-*"))) == 1
    with open_writer(index.path) as writer:
        writer.finish()
    assert len(list(index.path.glob("vectors-*"))) == 1


def test_the_words_that_were_asked_for_are_highlighted():
    text = "The rivers flowed; flowers grew."
    assert [text[a:b] for a, b in highlight_spans(text, "Where does the river flow?")] == [
        "rivers",
        "flowed",
    ]


def test_a_large_index_scores_no_more_passages_than_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr("specrag_native.retrieval.fulltext.SMALL", 0)
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(40):
        rare = "walrus" if i == 7 else "seal"
        (folder / f"{i}.txt").write_text(f"Common words and the {rare} in text {i}.")
    run_index(folder, tmp_path / "many-index")
    with Index.open(tmp_path / "many-index") as index, index._store.read() as connection:

        def found(question, budget):
            return len(search_text(connection, question, limit=99, budget=budget))

        assert found("common walrus", None) == 40
        assert found("common walrus", 5) == 1, "the frequent word is left out"
        assert found("common words", 5) == 0, "frequent words alone rank nothing"
        assert found("common 7", 5) == 1
        assert found("seal 8 text", 2) == 1
        assert found("zebra", 5) == 0
