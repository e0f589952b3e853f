"""Results that may be compared: the same questions from the same evidence, method beside method.

Law: a difference between two methods is taken over the questions both have answered, and over no
others; seconds of two machines are never set beside each other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specrag_native.evaluation.intervals import Interval, paired_difference
from specrag_native.evaluation.offline import derive
from specrag_native.evaluation.records import Header, Record
from specrag_native.evaluation.results import ResultSet
from specrag_native.evaluation.summary import Summary, summarise

BASELINE = "standard"
_ORDER = ("standard", "speculative", "drafter", "oracle", "corrective", "self-reflective")


@dataclass(frozen=True)
class Entry:
    """One method on one set."""

    name: str
    header: Header
    records: Mapping[str, Record]
    contended: bool
    derived: bool
    place: str | None = None
    """The machine whose seconds count; ``None``: any."""

    @functools.cached_property
    def summary(self) -> Summary:
        """The figures of its records; entries are renamed and placed before anyone reads them."""
        return summarise(list(self.records.values()), place=self.place)

    def beside(self, other: Entry) -> list[tuple[Record, Record]]:
        """Return the records of this and of ``other``, by question, for the questions of both."""
        return [(r, other.records[id]) for id, r in self.records.items() if id in other.records]

    def against(self, other: Entry) -> Interval | None:
        """Return how much more accurate this is than ``other``, on the questions of both."""
        return None if other is self else difference(self.beside(other))


@dataclass(frozen=True)
class Group:
    """All methods measured on one set with the same evidence and the same verifier."""

    dataset: str
    evidence: str
    verifier: str
    entries: Sequence[Entry]

    @property
    def title(self) -> str:
        """What a table or plot of this group is called."""
        kind = "" if self.evidence == "given" else f" ({self.evidence})"
        return f"{self.dataset}{kind}"

    def find(self, name: str) -> Entry | None:
        """Return the method of this name."""
        return next((e for e in self.entries if e.name == name), None)

    @property
    def place(self) -> str | None:
        """The machine whose seconds count."""
        return self.entries[0].place if self.entries else None

    @property
    def baseline(self) -> Entry | None:
        """Standard RAG with the verifier."""
        return self.find(BASELINE)

    def base_of(self, entry: Entry) -> Entry | None:
        """Return the method that an ablation or a sweep is a variant of.

        What is derived belongs to the results it is derived from; otherwise it is the speculative
        entry with the fewest other settings.
        """
        if entry.derived:
            return next(
                (
                    e
                    for e in self.entries
                    if not e.derived and e.header.config_hash == entry.header.config_hash
                ),
                None,
            )
        found = [e for e in self.main if e.header.method == "speculative" and not e.derived]
        return min(found, key=lambda e: _n_unlike(e.header, entry.header), default=None)

    @property
    def main(self) -> list[Entry]:
        """The methods themselves, without their ablations and sweeps."""
        return [e for e in self.entries if is_main(e)]


def difference(pairs: Sequence[tuple[Record, Record]]) -> Interval | None:
    """Return how much more accurate the first of each pair is than the second."""
    if not pairs:
        return None
    return paired_difference([a.grade.right for a, _ in pairs], [b.grade.right for _, b in pairs])


def is_main(entry: Entry) -> bool:
    """Return whether an entry is a method as it is by default, not an ablation of it."""
    return " " not in entry.name.partition(" (")[0]


def group(results: Sequence[ResultSet]) -> list[Group]:
    """Return the groups of some results, with what is derived from drafts added."""
    held: dict[tuple[str, str, str], list[Entry]] = {}
    for result in results:
        header = result.header
        if not result.records:
            continue
        verifier = header.models.get("verifier", {}).get("file", "")
        key = (header.dataset, header.evidence, verifier)
        busy = bool(result.contended)
        held.setdefault(key, []).append(
            Entry(header.variant, header, result.records, busy, derived=False)
        )
        for name, records in derive(result).items():
            if records:
                held[key].append(
                    Entry(name, header, {r.id: r for r in records}, busy, derived=True)
                )
    _place_verifierless(held)
    everything = [e for entries in held.values() for e in entries]
    return [
        Group(dataset, evidence, verifier, _placed(_named(entries, everything)))
        for (dataset, evidence, verifier), entries in sorted(held.items())
    ]


def _placed(entries: Sequence[Entry]) -> list[Entry]:
    """Let only the seconds of one machine count: where most methods answered, with the baseline.

    Of several it is the one where the baseline answered most questions, and then the one that came
    later.
    """
    measured = [e for e in entries if not e.derived]
    counted = [e for e in measured if e.name == BASELINE] or measured
    places = Counter(r.machine for e in counted for r in e.records.values())
    methods = Counter(p for e in measured for p in {r.machine for r in e.records.values()})
    place = max(reversed(places), key=lambda p: (methods[p], places[p]))
    return [dataclasses.replace(e, place=place) for e in entries]


def _place_verifierless(held: dict[tuple[str, str, str], list[Entry]]) -> None:
    """Put methods without a verifier beside those of every verifier on the same set."""
    for key in [k for k in held if not k[2]]:
        others = [k for k in held if k[:2] == key[:2] and k[2]]
        for other in others:
            held[other] += held[key]
        if others:
            del held[key]


def _named(entries: Sequence[Entry], everything: Sequence[Entry]) -> list[Entry]:
    """Drop derived entries that are better known otherwise, and tell apart entries of one name.

    A name means the same in every group: what differs between any two of its entries is said.
    """
    kept: list[Entry] = []
    for entry in sorted(entries, key=lambda e: (e.derived, -len(e.records))):
        if not entry.derived or (entry.name, _drafter(entry)) not in {
            (k.name, _drafter(k)) for k in kept
        }:
            kept.append(entry)
    out = []
    for entry in kept:
        here = [e for e in kept if e.name == entry.name]
        others = [e for e in everything if e.name == entry.name and not e.derived]
        mark = _mark(entry, here, others if not entry.derived else here)
        name = f"{entry.name} ({mark})" if mark else entry.name
        out.append(Entry(name, entry.header, entry.records, entry.contended, entry.derived))
    rank = {name: i for i, name in enumerate(_ORDER)}
    return sorted(
        out,
        key=lambda e: (not is_main(e), rank.get(e.name.partition(" ")[0], len(rank)), e.name),
    )


def _mark(entry: Entry, here: Sequence[Entry], others: Sequence[Entry]) -> str:
    """Return what sets an entry apart from others of its name: models, settings, or its hash."""
    marks = []
    if len({_drafter(e) for e in others}) > 1:
        marks.append(Path(_drafter(entry)).stem)
    for name, value in entry.header.config.items():
        # A setting that a run does not state is one its method does not read, or did not have yet.
        if any(e.header.config.get(name, value) != value for e in others):
            shown = ("fitted" if value else "none") if isinstance(value, (list, tuple)) else value
            marks.append(f"{name}={shown}")
    alike = [e for e in here if _drafter(e) == _drafter(entry)]
    if sum(e.header.config == entry.header.config for e in alike) > 1:
        marks.append(entry.header.config_hash[:6])
    return ", ".join(marks)


def _n_unlike(a: Header, b: Header) -> int:
    return sum(b.config.get(name) != value for name, value in a.config.items())


def _drafter(entry: Entry) -> str:
    return entry.header.models.get("drafter", {}).get("file", "")
