"""Plots of a report as PNG files, by matplotlib (extra ``eval``).

Law: a plot shows figures of the tables and nothing else; without data there is no plot.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from specrag_native.errors import UserError
from specrag_native.evaluation.comparison import Entry, Group, is_main
from specrag_native.evaluation.summary import calibration, risk_coverage

_COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")
_METHODS = ("standard", "speculative", "drafter", "oracle", "corrective", "self-reflective")
_GREY = "#8a8f98"
_STAGES = (
    *("retrieve", "embed_question", "rerank", "cluster"),
    *("draft", "grade", "verify", "repair", "cite"),
)


def draw_all(groups: Sequence[Group]) -> dict[str, bytes]:
    """Return every plot there is data for, as PNG, by file name without suffix.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            "plots need matplotlib: pip install 'specrag-native[eval]', or give --no-plots"
        ) from None
    matplotlib.use("Agg")
    drawn = {"accuracy": _accuracy(groups), "latency": _latency(groups)}
    for group in groups:
        slug = re.sub(r"[^a-z0-9]+", "-", group.title.lower()).strip("-")
        drawn[f"sweep-{slug}"] = _sweeps(group)
        drawn[f"ablations-{slug}"] = _ablations(group)
        drawn[f"calibration-{slug}"] = _calibration(group)
    return {name: png for name, png in drawn.items() if png is not None}


def _accuracy(groups: Sequence[Group]) -> bytes | None:
    names = list(dict.fromkeys(e.name for g in groups for e in g.main))
    if not names:
        return None
    figure, axes = _figure(max(6.0, 1.6 + len(groups) * (0.5 + 0.28 * len(names))), 3.8)
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        found = [(x, e) for x, g in enumerate(groups) if (e := g.find(name)) is not None]
        at = [x - 0.4 + (i + 0.5) * width for x, _ in found]
        accuracy = [e.summary.accuracy for _, e in found]
        axes.bar(
            at,
            [100 * a.mean for a in accuracy],
            width * 0.9,
            label=name,
            color=_colour_of(name),
            hatch="//" if all(e.derived for _, e in found) else None,
            edgecolor="white",
            linewidth=0.5,
        )
        axes.errorbar(
            at,
            [100 * a.mean for a in accuracy],
            yerr=[
                [100 * (a.mean - a.low) for a in accuracy],
                [100 * (a.high - a.mean) for a in accuracy],
            ],
            fmt="none",
            ecolor="#333333",
            elinewidth=0.9,
            capsize=2,
        )
    axes.set_xticks(range(len(groups)), [_wrapped(g) for g in groups])
    axes.set_ylabel("right, % (95% interval)")
    axes.set_ylim(0, 100)
    _title(axes, "Accuracy by set and method")
    _legend(axes)
    return _png(figure)


def _latency(groups: Sequence[Group]) -> bytes | None:
    places = Counter(g.place for g in groups)
    place = max(places, key=lambda p: places[p], default=None)
    rows = [
        (f"{g.dataset}\n{e.name}{' *' if e.contended else ''}", e)
        for g in groups
        if g.place == place
        for e in g.main
        if not e.derived and e.summary.stages
    ]
    if not rows:
        return None
    figure, axes = _figure(7.2, 1.1 + 0.38 * len(rows))
    left = [0.0] * len(rows)
    longest = max(sum(e.summary.stages.get(stage, 0.0) for stage in _STAGES) for _, e in rows)
    for i, stage in enumerate(_STAGES):
        values = [e.summary.stages.get(stage, 0.0) for _, e in rows]
        if max(values) < 0.005 * longest:
            continue
        axes.barh(range(len(rows)), values, left=left, label=stage, color=_colour(i), height=0.65)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for y, total in enumerate(left):
        axes.text(total, y, f" {total:.1f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(left) * 1.12 or 1.0)
    axes.set_xlabel("seconds per question, mean")
    axes.grid(axis="x", color="#e5e5e5")
    axes.grid(axis="y", visible=False)
    _title(axes, f"Seconds by stage ({place})" if len(places) > 1 else "Seconds by stage")
    _legend(axes)
    if any(e.contended for _, e in rows):
        figure.text(
            0.01, 0.005, "* measured while the machine did other work", fontsize=7, color=_GREY
        )
    return _png(figure)


def _sweeps(group: Group) -> bytes | None:
    swept = []
    for key, label in (("n_drafts", "drafts m"), ("passages_per_draft", "passages per draft k")):
        points: dict[int, Entry] = {}
        for e in group.entries:
            letter = "m" if key == "n_drafts" else "k"
            if re.fullmatch(rf"speculative {letter}=\d+", e.name):
                points[int(e.header.config[key])] = e
        if len(points) > 1:
            swept.append((label, sorted(points.items())))
    if not swept:
        return None
    figure, axes_list = _figures(len(swept), 4.2, 3.2)
    for axes, (label, points_) in zip(axes_list, swept, strict=True):
        x = [value for value, _ in points_]
        accuracy = [e.summary.accuracy for _, e in points_]
        axes.fill_between(
            x,
            [100 * a.low for a in accuracy],
            [100 * a.high for a in accuracy],
            color=_colour(0),
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(x, [100 * a.mean for a in accuracy], "o-", color=_colour(0), label="speculative")
        oracle = [e.summary.oracle for _, e in points_]
        if all(o is not None for o in oracle):
            axes.plot(
                x, [100 * o for o in oracle if o is not None], "o--", color=_GREY, label="oracle"
            )
        if group.baseline is not None:
            axes.axhline(
                100 * group.baseline.summary.accuracy.mean,
                color=_colour(1),
                linestyle=":",
                label="standard",
            )
        axes.set_xticks(x)
        axes.set_xlabel(label)
        axes.set_ylim(0, 100)
    axes_list[0].set_ylabel("right, %")
    _title(axes_list[0], f"{group.title}: size of the method")
    _legend(axes_list[-1])
    return _png(figure)


def _ablations(group: Group) -> bytes | None:
    entries = [e for e in group.entries if not is_main(e) and not re.search(r"\b[mk]=\d", e.name)]
    rows = [
        (e.name.removeprefix("speculative "), d)
        for e in entries
        if (base := group.base_of(e)) is not None and (d := e.against(base)) is not None
    ]
    if not rows:
        return None
    n = max(d.n for _, d in rows)
    figure, axes = _figure(6.4, 1.3 + 0.32 * len(rows))
    for y, (_, d) in enumerate(rows):
        colour = _colour(2) if d.high < 0 else _colour(4) if d.low > 0 else _GREY
        axes.plot([100 * d.low, 100 * d.high], [y, y], color=colour, linewidth=2)
        axes.plot([100 * d.mean], [y], "o", color=colour)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", color="#e5e5e5")
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("difference to speculative, percentage points (95% interval)")
    _title(axes, f"{group.title}: what each part is worth (n = {n})")
    return _png(figure)


def _calibration(group: Group) -> bytes | None:
    entries = [e for e in group.main if e.name != "oracle" and _pairs(e)]
    if not entries:
        return None
    figure, (left, right) = _figures(2, 4.2, 3.6)
    left.plot([0, 1], [0, 1], color="#cccccc", linewidth=1)
    for e in entries:
        bins = calibration(_pairs(e))
        largest = max(b.n for b in bins)
        left.plot(
            [b.confidence for b in bins],
            [b.accuracy for b in bins],
            color=_colour_of(e.name),
            alpha=0.6,
        )
        left.scatter(
            [b.confidence for b in bins],
            [b.accuracy for b in bins],
            s=[12 + 70 * b.n / largest for b in bins],
            color=_colour_of(e.name),
            zorder=3,
        )
        curve = risk_coverage(_pairs(e))
        right.plot(
            [c for c, _ in curve],
            [risk for _, risk in curve],
            color=_colour_of(e.name),
            label=e.name,
        )
    left.set_xlim(0, 1)
    left.set_ylim(-0.03, 1.03)
    left.set_xlabel("confidence (size: answers in the bin)")
    left.set_ylabel("share right")
    _title(left, f"{group.title}: calibration")
    right.set_xlim(0, 1)
    right.set_ylim(-0.03, 1.03)
    right.set_xlabel("coverage: share of answers given, surest first")
    right.set_ylabel("risk: share of them wrong")
    _title(right, "risk and coverage")
    _legend(right)
    return _png(figure)


def _pairs(entry: Entry) -> list[tuple[float, float]]:
    return [(r.confidence, r.grade.right) for r in entry.records.values() if not r.abstained]


def _wrapped(group: Group) -> str:
    return f"{group.dataset}\n({group.evidence})" if group.evidence != "given" else group.dataset


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]


def _colour_of(name: str) -> str:
    """Return a method's colour, the same in every plot."""
    if name in _METHODS:
        return _COLOURS[_METHODS.index(name)]
    return _COLOURS[len(_METHODS) + sum(map(ord, name)) % (len(_COLOURS) - len(_METHODS))]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure, (axes,) = _figures(1, width, height)
    return figure, axes


def _figures(n: int, width: float, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(n * width, height), dpi=130, layout="constrained")
    axes = list(figure.subplots(1, n, squeeze=False)[0])
    for a in axes:
        a.spines[["top", "right"]].set_visible(False)
        a.grid(axis="y", color="#e5e5e5")
        a.set_axisbelow(True)
        a.tick_params(labelsize=8)
        a.xaxis.label.set_fontsize(9)
        a.yaxis.label.set_fontsize(9)
    return figure, axes


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, fontweight="bold")


def _legend(axes: Any) -> None:
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0
    )


def _png(figure: Any) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format="png", metadata={"Software": None})
    return held.getvalue()
