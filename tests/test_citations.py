from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.answering.citations import cite
from specrag_native.types import Passage

THAMES = (
    "Preface, not part of the passage. The River Thames flows through southern England. "
    "It rises at Thames Head in Gloucestershire, and flows into the North Sea via the Thames "
    "Estuary. It is 215 miles long."
)
START = THAMES.index("The River")


def thames(**changes):
    values = dict(
        id="1",
        document="rivers.txt",
        title="River Thames",
        text=THAMES[START:],
        start=START,
        end=len(THAMES),
        page=4,
    )
    return Passage(**{**values, **changes})


BEES = Passage(
    id="2",
    document="bees.txt",
    title="Bees",
    text="Bees make honey from nectar. A hive holds up to 60,000 bees in summer.",
    start=0,
    end=70,
)


def test_a_citation_stands_verbatim_in_its_document():
    result = cite("The Thames rises at Thames Head.", "Thames Head", [BEES, thames()])
    (citation,) = result.citations
    assert citation.text.startswith("It rises at Thames Head in Gloucestershire")
    assert THAMES[citation.start : citation.end] == citation.text
    assert (citation.document, citation.title, citation.page) == ("rivers.txt", "River Thames", 4)
    assert result.support == 1.0


def test_a_sentence_without_support_is_marked_not_hidden():
    rationale = "Bees make honey from nectar. Wasps build paper nests under roofs."
    result = cite(rationale, "honey", [BEES])
    assert [s.supported for s in result.sentences] == [True, False]
    assert result.unsupported[0].text == "Wasps build paper nests under roofs."
    assert result.unsupported[0].citations == ()
    assert 0.2 < result.support < 0.6
    assert [rationale[s.start : s.end] for s in result.sentences] == [
        s.text for s in result.sentences
    ]


def test_a_number_that_the_passage_does_not_hold_breaks_the_support():
    right = cite("The River Thames is 215 miles long.", "215 miles", [thames()])
    wrong = cite("The River Thames is 346 miles long.", "346 miles", [thames()])
    assert right.support == 1.0 and wrong.support == 0.0
    assert wrong.citations == () and len(wrong.unsupported) == 1


def test_the_rarer_words_decide_which_sentence_is_cited():
    text = "The town has a mayor. The town has a park. The town has a cathedral built by Wren."
    passage = Passage(id="3", document="t", title="", text=text, start=0, end=len(text))
    result = cite("Wren built the cathedral of the town.", "Wren", [passage])
    assert result.citations[0].text == "The town has a cathedral built by Wren."


def test_a_claim_drawn_from_two_sentences_cites_both():
    claim = "Honey is made by bees from nectar, and the Thames flows into the North Sea."
    result = cite(claim, "", [BEES, thames()])
    assert {c.document for c in result.citations} == {"bees.txt", "rivers.txt"}
    assert result.sentences[0].citations == (0, 1)


def test_a_span_cited_twice_is_listed_once():
    result = cite("Bees make honey. Honey is made from nectar by bees.", "honey", [BEES])
    assert len(result.citations) == 1
    assert [s.citations for s in result.sentences] == [(0,), (0,)]


def test_without_a_rationale_the_answer_is_cited():
    assert cite(" ", "honey from nectar", [BEES]).citations[0].text.startswith("Bees make honey")


def test_of_sentences_that_hold_the_answer_the_one_that_was_asked_about_is_cited():
    text = "Wren was born in Wiltshire. Sir Christopher Wren designed the great cathedral."
    passage = Passage("3", "wren.txt", "", text, end=len(text))
    asked = "Who designed the cathedral?"
    assert cite("", "Wren", [passage], asked).citations[0].text.startswith("Sir Christopher")
    assert cite("", "Wren", [passage]).citations[0].text.startswith("Wren was born")


@pytest.mark.parametrize("answer", ["Yes", "No.", "false"])
def test_a_judgement_cites_what_the_question_is_about(answer):
    result = cite("", answer, [thames(), BEES], "Do bees make honey from nectar?")
    assert [c.text for c in result.citations] == ["Bees make honey from nectar."]
    assert [s.text for s in result.sentences] == [answer] and result.support == 1.0
    assert cite("", answer, [thames(), BEES], "Do ants milk aphids?").unsupported


def test_nothing_to_cite_gives_no_support():
    assert cite("", "", [BEES]).support == 0.0
    assert cite("Bees make honey.", "honey", []).unsupported
    assert cite("It is so.", "", [BEES]).sentences == ()


TEXT = st.lists(
    st.sampled_from(
        ["bees", "honey", "1999", "the", "a.", "It", "Dr.", "flows!\n\n", "中。", "made", "making"]
    )
    | st.text(max_size=6),
    max_size=40,
).map(" ".join)


@given(rationale=TEXT, answer=TEXT, texts=st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_whatever_is_said_every_citation_is_exact(rationale, answer, texts):
    documents = {}
    passages = []
    for i, (before, text) in enumerate(texts):
        documents[str(i)] = before + text
        passages.append(
            Passage(
                id=str(i),
                document=str(i),
                title="",
                text=text,
                start=len(before),
                end=len(before) + len(text),
            )
        )
    result = cite(rationale, answer, passages)
    assert 0.0 <= result.support <= 1.0
    for citation in result.citations:
        assert documents[citation.document][citation.start : citation.end] == citation.text
        assert citation.text.strip()
    for sentence in result.sentences:
        assert sentence.supported == bool(sentence.citations)
        assert all(0 <= i < len(result.citations) for i in sentence.citations)
