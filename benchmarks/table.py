"""Writes tables of figures into the documents, and the README's pictures, from stored results.

``python benchmarks/table.py`` renews all; ``--check`` fails when a table is not what the stored
results give.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tables import (
    cache,
    dial,
    documents,
    drafter,
    engine,
    hops,
    overall,
    paper,
    readings,
    retrieval,
    sets,
    settled,
    speed,
    weights,
)

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "engine.png"
SPEED_PICTURE = ROOT / "docs" / "speed.png"
INDEXING = ROOT / "docs" / "indexing.md"
SPEED = ROOT / "docs" / "speed.md"
TRIED = ROOT / "docs" / "tried.md"
CARD = ROOT / "models" / "specrag-drafter-135m.md"
HOP_CARD = ROOT / "models" / "specrag-hop-ranker-22m.md"


def renewed(text: str, name: str, table: str) -> str:
    """Return the document with the table between the marks of that name."""
    begin, end = f"<!-- {name} table -->", f"<!-- end of {name} table -->"
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n{table}\n{end}{tail}"


def renewed_all(path: Path, tables: dict[str, str]) -> str:
    """Return the document with several tables renewed."""
    text = path.read_text()
    for name, table in tables.items():
        text = renewed(text, name, table)
    return text


def main() -> int:
    """Renew the tables and the pictures, or check the tables."""
    results = engine.read_results()
    by_set = sets.sets_table()
    fresh = {
        README: renewed_all(
            README,
            {
                "engine": engine.engine_table(results),
                "sets": by_set,
                "together": overall.together_table(),
                "settled": settled.settled_table(),
                "kinds": sets.kinds_table(),
            },
        ),
        INDEXING: renewed_all(
            INDEXING,
            {"retrieval": retrieval.retrieval_table(), "figures": retrieval.figures_table()},
        ),
        SPEED: renewed_all(
            SPEED,
            {
                "sets": by_set,
                "fresh": sets.fresh_table(),
                "speed": speed.speed_table(),
                "naive": speed.naive_table(),
                "weights": weights.weights_table(),
                "dial": dial.dial_table(),
                "cache": cache.cache_table(),
                "documents": documents.documents_table(),
            },
        ),
        TRIED: renewed_all(TRIED, {"readings": readings.readings_table()}),
        HOP_CARD: renewed_all(HOP_CARD, {"hops": hops.hops_table()}),
        CARD: renewed_all(
            CARD,
            {
                "drafter": drafter.drafter_table(),
                "fits": drafter.fits_table(0),
                "forms": drafter.fits_table(1),
                "checks": drafter.checks_table(),
                "paper": paper.paper_table(),
                "alone": drafter.alone_table(),
                "evidence": drafter.evidence_table(),
                "evidence sets": drafter.evidence_sets_table(),
            },
        ),
    }
    if "--check" in sys.argv:
        stale = [path.name for path, text in fresh.items() if text != path.read_text()]
        for name in stale:
            print(f"{name} is not what the stored results give")
        return 1 if stale else 0
    for path, text in fresh.items():
        path.write_text(text)
    engine.draw(results, PICTURE)
    sets.draw(SPEED_PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
