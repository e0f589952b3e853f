"""The report as one HTML page that needs nothing but itself.

Law: every text from a result, a document or a model is escaped; the page loads nothing and runs no
script.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape

from specrag_native.evaluation.comparison import Entry, Group
from specrag_native.evaluation.datasets import Example
from specrag_native.evaluation.offline import any_right
from specrag_native.evaluation.records import DraftRecord, Record
from specrag_native.evaluation.tables import NONE, Table

N_SHOWN = 10
"""Questions shown of each kind."""

Questions = Mapping[tuple[str, str], Example]
"""Questions by set and id, for reports read where the sets are at hand."""

_STYLE = """
:root { color-scheme: light dark; --line: #d7dae0; --soft: #f3f4f7; --dim: #666c78; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3a3f4a; --soft: #23262d; --dim: #9aa1ad; } img { background: #fff; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .28rem .6rem; text-align: right;
  vertical-align: top; white-space: nowrap; }
th { font-weight: 600; white-space: normal; vertical-align: bottom; min-width: 3rem; }
th.text, td.text { text-align: left; }
td.long { text-align: left; white-space: normal; min-width: 16rem; max-width: 34rem; }
p.note { color: var(--dim); font-size: .84rem; max-width: 60rem; }
img { max-width: min(100%, 60rem); height: auto; display: block; margin: .6rem 0; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .4rem 0;
  padding: .4rem .8rem; }
summary { cursor: pointer; }
tr.chosen { background: var(--soft); } .right { color: #1a8a3a; } .wrong { color: #c2352b; }
.dim { color: var(--dim); }
"""


def render(
    groups: Sequence[Group],
    tables: Sequence[Table],
    plots: Mapping[str, bytes],
    questions: Questions,
) -> str:
    """Return the page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Evaluation</title><style>{_STYLE}</style></head><body>",
        "<h1>Evaluation</h1>",
    ]
    for name in ("accuracy", "latency"):
        if name in plots:
            parts.append(_image(name, plots[name]))
    for table in tables:
        parts.append(_table(table))
        for name, png in plots.items():
            if table.title.startswith("Variants on ") and _belongs(name, table.title):
                parts.append(_image(name, png))
    shown = {n for t in tables for n in plots if _belongs(n, t.title)} | {"accuracy", "latency"}
    rest = [(name, png) for name, png in plots.items() if name not in shown]
    if rest:
        parts.append("<h2>Confidence</h2>")
        parts += [_image(name, png) for name, png in rest]
    for group in groups:
        parts += _stories(group, questions)
    parts.append(_provenance(groups))
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _belongs(plot: str, title: str) -> bool:
    slug = re.sub(r"[^a-z0-9]+", "-", title.removeprefix("Variants on ").lower()).strip("-")
    return plot in (f"sweep-{slug}", f"ablations-{slug}")


def _image(name: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _table(table: Table) -> str:
    text = {"Set", "Method", "Variant"}
    long = {"Mean seconds by stage"}

    def kind(column: str) -> str:
        return ' class="text"' if column in text else ' class="long"' if column in long else ""

    head = "".join(f"<th{kind(c)}>{escape(c)}</th>" for c in table.columns)
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{kind(c)}>{_emphasised(cell)}</td>"
            for c, cell in zip(table.columns, row, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{_emphasised(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _emphasised(cell: str) -> str:
    if len(cell) > 2 and cell[0] == cell[-1] == "*":
        return f"<em>{escape(cell[1:-1])}</em>"
    return escape(cell)


def _stories(group: Group, questions: Questions) -> list[str]:
    entry = next((e for e in group.main if e.name.startswith("speculative")), None)
    if entry is None:
        return []
    records = list(entry.records.values())
    timed = [r for r in records if "total" in r.timings]
    slowest = sorted(timed, key=lambda r: -r.timings["total"])[:N_SHOWN]
    misjudged = [r for r in records if not r.grade.right and any_right(r.drafts)]
    misjudged.sort(key=lambda r: -r.confidence)
    surely = [r for r in records if not r.grade.right and not r.abstained]
    surely.sort(key=lambda r: -r.confidence)
    parts = [f"<h2>Questions to look at: {escape(group.title)}</h2>"]
    for title, found in (
        (f"Wrongly chosen: a draft was right ({len(misjudged)})", misjudged),
        ("Surest of what is wrong", [r for r in surely if not any_right(r.drafts)]),
        ("Slowest", slowest),
    ):
        if found:
            parts.append(f"<h3>{escape(title)}</h3>")
            parts += [_story(r, group, questions, entry) for r in found[:N_SHOWN]]
    return parts


def _story(record: Record, group: Group, questions: Questions, entry: Entry) -> str:
    example = questions.get((record.dataset, record.id))
    asked = f"<p>{escape(example.question.text)}</p>" if example else ""
    accepted = (
        f'<p class="dim">accepted: {escape("; ".join(example.answers[:6]))}</p>' if example else ""
    )
    mark = "right" if record.grade.right else "wrong"
    others = "".join(
        f'<p class="dim">{escape(e.name)}: {escape(r.answer)} '
        f"({'right' if r.grade.right else 'wrong'})</p>"
        for e in group.main
        if e is not entry and not e.derived and (r := e.records.get(record.id)) is not None
    )
    rows = "".join(_draft(d, record) for d in _ranked(record.drafts))
    stages = ", ".join(f"{escape(n)} {v:.1f}" for n, v in record.timings.items() if v >= 0.05)
    head = "".join(
        f"<th{' class=text' if i < 2 else ''}>{name}</th>"
        for i, name in enumerate(
            ("answer", "rationale", "total", "draft", "self-cont.", "P(yes)", "support")
        )
    )
    return (
        f"<details><summary>{escape(record.id)}: "
        f'<span class="{mark}">{escape(record.answer) or NONE}</span> '
        f'<span class="dim">({escape(record.decided_by)}, confidence {record.confidence:.2f}, '
        f"{record.timings.get('total', 0.0):.1f} s)</span></summary>"
        f'{asked}{accepted}{others}<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="dim">seconds: {stages}</p></details>'
    )


def _ranked(drafts: Sequence[DraftRecord]) -> list[DraftRecord]:
    low = float("-inf")
    return sorted(drafts, key=lambda d: -(d.total if d.total is not None else low))


def _draft(draft: DraftRecord, record: Record) -> str:
    from specrag_native.evaluation.offline import own_score

    mark = "right" if draft.grade.right else "wrong"
    chosen = ' class="chosen"' if draft.answer == record.answer else ""
    rationale = draft.rationale
    if rationale is None:
        rationale = f"({draft.rationale_logprob.n_tokens} tokens)"
    figures = (
        draft.total,
        own_score(draft, {"normalisation": "mean"}),
        draft.contained.logprob_mean if draft.contained else None,
        draft.log_yes,
        draft.support,
    )
    cells = "".join(f"<td>{NONE if f is None else f'{f:.2f}'}</td>" for f in figures)
    said = "outranked" if draft.outranked else "unknown" if draft.unknown else draft.answer
    return (
        f'<tr{chosen}><td class="long"><span class="{mark}">{escape(said)}</span></td>'
        f'<td class="long">{escape(rationale)}</td>{cells}</tr>'
    )


def _weights(model: Mapping[str, str]) -> str:
    return f", weights {model['weights']}" if "weights" in model else ""


def _provenance(groups: Sequence[Group]) -> str:
    lines = dict.fromkeys(
        f"{e.header.command} \N{EM DASH} commit {e.header.machine.get('commit', '?')}, "
        f"{e.header.machine.get('cpu', '?')}, {e.header.machine.get('threads', '?')} threads, "
        + ", ".join(
            f"{role} {m['file']} (sha256 {m['sha256'][:12]}{_weights(m)})"
            for role, m in e.header.models.items()
        )
        for g in groups
        for e in g.entries
        if not e.derived
    )
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>How this was made</h2><ul>{items}</ul>"
