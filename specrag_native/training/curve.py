"""The loss curve of a fit, as a picture.

Law: it shows what is in the file of losses and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from specrag_native.training.fit import read_losses


def plot(out: Path) -> Path | None:
    """Draw ``loss.png`` in a fit's folder; ``None`` without matplotlib or without a step."""
    steps = read_losses(out)
    if not steps:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seen, examples = [], 0
    for step in steps:
        examples += step.examples
        seen.append(examples)
    losses = [s.loss for s in steps]
    axes.plot(seen, losses, color="#b8c4d6", linewidth=1, label="one step")
    mean, means = losses[0], []
    for loss in losses:
        mean = 0.9 * mean + 0.1 * loss
        means.append(mean)
    axes.plot(seen, means, color="#20558a", linewidth=2, label="running mean")
    axes.set_xlabel("examples seen")
    axes.set_ylabel("loss, nats per token the drafter writes")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path = out / "loss.png"
    figure.savefig(path, dpi=120)
    return path
