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
) -> list[tuple[int, float]]:
    """Return ids and BM25 scores (higher is better) of the best passages for ``question``."""
    words = terms(question)
    if not words or limit <= 0:
        return []
    rows = connection.execute(
        "SELECT rowid, -rank FROM fulltext WHERE fulltext MATCH ? AND rank MATCH ?"
        " ORDER BY rank LIMIT ?",
        (match_query(words), f"bm25({title_weight:g}, 1.0)", limit),
    )
    return [(int(key), float(score)) for key, score in rows]


def highlight_spans(text: str, question: str) -> list[tuple[int, int]]:
    """Return the words of ``text`` that share their stem with a word of ``question``."""
    wanted = {stem(word) for word in terms(question)}
    return [m.span() for m in _WORD.finditer(text) if stem(m.group().lower()) in wanted]
