"""Questions that took part in no choice, told from those whose answers were in view by then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from specrag_native.evaluation.results import ResultSet

SEEN: Mapping[str, int] = {
    "triviaqa-e5-dev": 190,
    "nq-e5-dev": 190,
    "popqa-e5-dev": 190,
    "2wikimultihopqa-dev": 33,
    "mhqa-dpr-dev": 40,
    "bamboogle-e5-dev": 37,
}
"""How many questions of each set, the first, had been answered and counted when the settings of
today were chosen. Of the reporting halves that is all."""


def after(results: Sequence[ResultSet], seen: Mapping[str, int]) -> list[ResultSet]:
    """Return results without the first ``seen`` questions of a set, by the order of standard RAG's.

    A set that ``seen`` does not name was not seen.
    """
    first: dict[str, set[str]] = {}
    for result in results:
        if result.header.method == "standard":
            dataset = result.header.dataset
            first[dataset] = set(list(result.records)[: seen.get(dataset, 0)])
    left = [
        dataclasses.replace(
            result,
            records={
                id: record
                for id, record in result.records.items()
                if id not in first.get(result.header.dataset, ())
            },
        )
        for result in results
    ]
    return [result for result in left if result.records]
