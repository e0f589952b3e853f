"""Words of a question, and the full-text query made of them.

Law: nothing a user types is ever parsed by the query language: a query is quoted words joined by
OR, made here and nowhere else.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

from specrag_native.words import STOP_WORDS, stem

_WORD = re.compile(r"[^\W_]+")
_MAX_TERMS = 64
_MAX_TERM_CHARS = 80
SMALL = 50_000
"""Up to so many passages every word of a question counts."""
BUDGET = 15_000
"""In a larger index, passages scored by BM25 for one question: about 15 ms on one core."""


def terms(text: str) -> list[str]:
    """Return the distinct words of ``text``, lower-cased, without stop words.

    Text that holds stop words only keeps them: a question like "who is who" still finds something.
    """
    words = [w[:_MAX_TERM_CHARS] for w in _WORD.findall(text.lower())]
    distinct = list(dict.fromkeys(words))
    return ([w for w in distinct if w not in STOP_WORDS] or distinct)[:_MAX_TERMS]


def match_query(words: Sequence[str]) -> str:
    """Return a full-text query that finds passages with any of ``words``."""
    return " OR ".join('"' + word.replace('"', '""') + '"' for word in words)


def search_text(
    connection: sqlite3.Connection,
    question: str,
    *,
    limit: int,
    title_weight: float = 1.0,
    budget: int | None = BUDGET,
) -> list[tuple[int, float]]:
    """Return ids and BM25 scores (higher is better) of the best passages for ``question``.

    ``budget`` bounds how many passages are scored, and with it the time: in a large index the most
    frequent words of the question are left out, which move BM25 least. When all of them are
    frequent, nothing is found: such words say nothing. ``None`` ranks by all words whatever it
    costs.
    """
    words = terms(question)
    if not words or limit <= 0:
        return []
    query = match_query(words)
    (passages,) = connection.execute("SELECT coalesce(max(id), 0) FROM passages").fetchone()
    if budget is not None and passages > SMALL:
        affordable = _affordable(connection, words, budget)
        if affordable is None:
            return []
        query = affordable
    rows = connection.execute(
        "SELECT rowid, -rank FROM fulltext WHERE fulltext MATCH ? AND rank MATCH ?"
        " ORDER BY rank LIMIT ?",
        (query, f"bm25({title_weight:g}, 1.0)", limit),
    )
    return [(int(key), float(score)) for key, score in rows]


def _affordable(connection: sqlite3.Connection, words: Sequence[str], budget: int) -> str | None:
    """Return the query of the rarest words that match at most ``budget`` passages in all."""
    counts = {word: _count(connection, match_query([word]), budget) for word in words}
    found = sorted((word for word in words if counts[word]), key=lambda word: counts[word])
    chosen: list[str] = []
    total = 0
    for word in found:
        total += counts[word]
        if total > budget:
            break
        chosen.append(word)
    return match_query(chosen) if chosen else None


def _count(connection: sqlite3.Connection, query: str, budget: int) -> int:
    """Return how many passages match, counted no further than just above ``budget``."""
    row = connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM fulltext WHERE fulltext MATCH ? LIMIT ?)",
        (query, budget + 1),
    ).fetchone()
    return int(row[0])


def highlight_spans(text: str, question: str) -> list[tuple[int, int]]:
    """Return the words of ``text`` that share their stem with a word of ``question``."""
    wanted = {stem(word) for word in terms(question)}
    return [m.span() for m in _WORD.finditer(text) if stem(m.group().lower()) in wanted]
