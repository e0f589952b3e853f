from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.sentences import line_spans, sentence_spans

TEXTS = st.text(
    alphabet=st.sampled_from("ab. Zz!?\n\t-#1\u3002\u4e2d\"'\u201d)\r\u2026\x85") | st.characters()
)


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize("split", [sentence_spans, line_spans])
@given(text=TEXTS)
def test_spans_are_in_order_and_leave_out_white_space_only(split, text):
    spans = split(text)
    position = 0
    for start, end in spans:
        assert position <= start < end <= len(text)
        assert text[position:start].strip() == ""
        assert text[start:end].strip()
        position = end
    assert text[position:].strip() == ""


def test_a_sentence_ends_at_its_stop_and_at_a_blank_line():
    assert sentences("One is here. Two follows! Is there three?\n\nA heading\n\nFour.") == [
        "One is here.",
        "Two follows!",
        "Is there three?",
        "A heading",
        "Four.",
    ]


def test_abbreviations_initials_and_numbers_do_not_end_a_sentence():
    text = "Dr. J. R. Smith of St. Ives paid approx. 3.5 pounds, i.e. a lot. He left."
    assert sentences(text) == [text[:-9], "He left."]


def test_closing_quotes_stay_with_their_sentence():
    assert sentences('"Stop." He stopped. (It was late.) She went.') == [
        '"Stop."',
        "He stopped.",
        "(It was late.)",
        "She went.",
    ]


def test_list_items_and_wide_full_stops_end_sentences():
    assert sentences("Buy:\n- milk\n- bread\n1. first") == ["Buy:", "- milk", "- bread", "1. first"]
    assert sentences("\u4e00\u4e8c\u3002\u4e09\u56db\u3002") == [
        "\u4e00\u4e8c\u3002",
        "\u4e09\u56db\u3002",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "." * 300_000,
        ". " * 150_000,
        "\n" * 300_000,
        "\n ." * 100_000,
        ".'" * 150_000,
        "a" * 300_000,
    ],
)
def test_hostile_text_is_split_in_linear_time(text):
    started = time.perf_counter()
    sentence_spans(text)
    assert time.perf_counter() - started < 20
