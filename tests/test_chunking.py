from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.errors import ConfigError
from specrag_native.retrieval.chunking import ChunkOptions, chunk, count_words

WORDS = st.sampled_from(
    [
        "alpha",
        "beta.",
        "Gamma!",
        "\n\n",
        "\n",
        "- item",
        "x" * 45,
        "\u4e2d\u6587\u5b57\u3002",
        "Dr.",
    ]
)
TEXTS = st.lists(WORDS | st.text(max_size=12), max_size=250).map(" ".join)


@given(
    text=TEXTS,
    words=st.integers(10, 60),
    overlap=st.integers(0, 5),
    pages=st.lists(st.integers(0, 3000), max_size=4),
    layout=st.sampled_from(["prose", "lines"]),
)
def test_passages_hold_every_word_once_within_their_limits(text, words, overlap, pages, layout):
    options = ChunkOptions(words=words, overlap=overlap)
    spans = chunk(text, pages=pages, layout=layout, options=options)
    covered = [False] * len(text)
    for start, end in spans:
        assert 0 <= start < end <= len(text)
        assert count_words(text, start, end) <= words * 3 // 2
        assert text[start:end].strip()
        for page in pages:
            assert not start < page < end, "a passage lies on one page"
        for i in range(start, end):
            assert overlap or not covered[i] or text[i].isspace(), "no character stands in two"
            covered[i] = True
    assert all(covered[i] or text[i].isspace() for i in range(len(text)))


def test_a_short_text_stays_one_passage():
    text = "A word is a word. " * 29
    assert chunk(text, options=ChunkOptions(words=100)) == [(0, len(text) - 1)]


def test_passages_of_prose_are_about_as_long_as_wanted_and_whole_sentences():
    sentence = "The quick brown fox jumps over the lazy dog near the river today."
    text = " ".join([sentence] * 100)
    spans = chunk(text, options=ChunkOptions(words=100))
    lengths = [count_words(text, *span) for span in spans]
    assert all(80 <= length <= 150 for length in lengths[:-1]) and lengths[-1] >= 50
    assert all(text[start:end].startswith("The quick") for start, end in spans)
    assert all(text[start:end].endswith("today.") for start, end in spans)


def test_overlap_repeats_the_last_sentences_of_the_passage_before():
    text = " ".join(f"Sentence number {i} has exactly seven words." for i in range(60))
    plain = chunk(text, options=ChunkOptions(words=50))
    lapped = chunk(text, options=ChunkOptions(words=50, overlap=14))
    assert all(a[1] <= b[0] for a, b in pairwise(plain))
    assert all(b[0] < a[1] for a, b in pairwise(lapped))
    assert all(a[0] < b[0] for a, b in pairwise(lapped))


def test_a_sentence_longer_than_a_passage_is_cut_between_words():
    text = "word " * 1000
    spans = chunk(text, options=ChunkOptions(words=100))
    assert len(spans) == 10
    assert all(text[start:end].split() == ["word"] * 100 for start, end in spans)


def test_an_empty_text_has_no_passages():
    assert chunk("") == [] and chunk(" \n\t ") == []


@pytest.mark.parametrize("values", [{"words": 5}, {"words": 5000}, {"overlap": 51}])
def test_lengths_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match="words"):
        ChunkOptions(**values)
