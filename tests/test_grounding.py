"""Whether an answer was read, or remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specrag_native.answering.grounding import echoes, stands_in
from specrag_native.types import Passage, Question

PASSAGE = Passage(
    "p",
    "towers.txt",
    "Hill towers",
    "Three towers stand on Mill Hill; Ann Gray built them in 1901.",
)


def found(answer: str, question: str = "What stands on Mill Hill?") -> bool:
    return stands_in(answer, Question(question), [PASSAGE])


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        ("three towers", True),
        ("3 towers", True),
        ("4 towers", False),
        ("a tower", True),
        ("Ann Gray", True),
        ("Ann Maria Gray", True),
        ("Ann Maria Louise Black", False),
        ("in 1901", True),
        ("in 1902", False),
        ("Ulaanbaatar", False),
        ("towers on Mill Hill", True),
    ],
)
def test_an_answer_is_there_when_its_own_words_are(answer: str, there: bool) -> None:
    assert found(answer) is there


def test_words_of_the_question_prove_nothing_and_are_not_asked_for() -> None:
    asked = "What is the capital of Mongolia?"
    assert not found("The capital of Mongolia is Ulaanbaatar", asked)
    assert found("Mongolia", asked)


def test_the_question_itself_is_no_answer() -> None:
    asked = "What stands on Mill Hill?"
    assert not found("What stands on Mill Hill?", asked)
    assert not found("It stands on Mill Hill.", asked)
    assert found("Mill Hill", asked)


def test_titles_are_read_too() -> None:
    assert stands_in("hill towers", Question("Which book?"), [PASSAGE])
    assert not stands_in("hill towers", Question("Which book?"), [])


@pytest.mark.parametrize(
    ("answer", "text", "there"),
    [
        ("30", "It has thirty rooms.", True),
        ("twenty-one", "It has 21 rooms.", True),
        ("21", "It has twenty-one rooms.", True),
        ("21", "It has twenty rooms and one door.", False),
        ("12345", "Some 12,345 people.", True),
        ("12,345 people", "Some 12345 people.", True),
        ("12,346 people", "Some 12,345 people.", False),
        ("Beyonce", "Sung by Beyoncé.", True),
        ("José Martí", "Jose Marti wrote it.", True),
    ],
)
def test_numbers_and_accents_may_be_written_otherwise(answer: str, text: str, there: bool) -> None:
    assert stands_in(answer, Question("Which?"), [Passage("p", "d", "", text)]) is there


@pytest.mark.parametrize(
    ("answer", "text", "there"),
    [
        ("Football", "He is a Danish footballer.", True),
        ("Denmark", "He is a Danish footballer.", False),
        ("Germany", "He is a German footballer.", True),
        ("Austria", "An Australian footballer.", False),
        ("art", "An article of his.", False),
        ("article", "His art.", False),
        ("12345", "House 123456.", False),
    ],
)
def test_a_word_may_be_derived_from_another(answer: str, text: str, there: bool) -> None:
    assert stands_in(answer, Question("Which?"), [Passage("p", "d", "", text)]) is there


@pytest.mark.parametrize(
    ("question", "answer", "text", "there"),
    [
        (
            "Где?",
            "Москва",
            "Он в Москве.",
            True,
        ),
        (
            "Где?",
            "Казань",
            "Он в Москве.",
            False,
        ),
        (
            "수도는?",
            "서울",
            "한국의 수도는 서울이다",
            True,
        ),
        (
            "首都は?",
            "東京",
            "日本の首都は東京です",
            True,
        ),
        ("Где?", "Москва", "He is in Moscow.", True),
    ],
)
def test_other_alphabets(question: str, answer: str, text: str, there: bool) -> None:
    assert stands_in(answer, Question(question), [Passage("p", "d", "", text)]) is there


@pytest.mark.parametrize("answer", ["yes", "No.", "Yes, it was", "True", "Neither"])
def test_a_judgement_need_not_stand_anywhere(answer: str) -> None:
    assert found(answer)
    assert stands_in(answer, Question("Was it?"), [])
    assert stands_in("true", Question("Towers fly.", "claim"), [])
    assert stands_in("B", Question("Which?", "choice", {"A": "x", "B": "y"}), [])


@pytest.mark.parametrize(
    ("answer", "question", "only"),
    [
        ("when the lease ends", "When does the lease end?", True),
        ("The Ferry", "Which is older, the ferry or the bridge?", True),
        ("2 towers", "Who built the two towers?", True),
        ("at noon", "When does the lease end?", False),
        ("the old ferry", "Which is older, the ferry or the bridge?", False),
        ("no", "Is the ferry older?", False),
    ],
)
def test_an_answer_echoes_when_all_its_words_are_the_questions(
    answer: str, question: str, only: bool
) -> None:
    assert echoes(answer, Question(question)) is only


@given(st.text(max_size=80), st.data())
def test_any_stretch_of_words_of_a_passage_stands_in_it(text: str, data: st.DataObject) -> None:
    words = text.split()
    begin = data.draw(st.integers(0, len(words)))
    end = data.draw(st.integers(begin, len(words)))
    passage = Passage("p", "d.txt", "", " ".join(words))
    assert stands_in(" ".join(words[begin:end]), Question("Which?"), [passage])
