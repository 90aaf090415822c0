"""Who works on which batch when: the measured times of a split training, and their picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of time in which a process worked on a batch; in between, it waits for other processes.

    Attributes:
        process: The process.
        iteration: The iteration, from 0.
        start, end: Seconds since the epoch.
    """

    process: int
    iteration: int
    start: float
    end: float


class Held(NamedTuple):
    """The bytes that a process holds.

    Attributes:
        process: The process.
        step: The peak of its step, with the batch in work, in addition to the others.
        waiting: Batches that wait, received or to be sent, and followed parameters on their way, at most.
        state: Parameters, buffers and optimizer state.
    """

    process: int
    step: int
    waiting: int
    state: int


def write_measurements(spans: Sequence[Span], held: Sequence[Held], path: Path) -> None:
    """Write spans and bytes as JSON, times in seconds since the first of them."""
    zero = min(span.start for span in spans)
    rows = [Span(s.process, s.iteration, round(s.start - zero, 4), round(s.end - zero, 4)) for s in sorted(spans)]
    path.write_text(json.dumps(dict(spans=rows, held=[h._asdict() for h in sorted(held)])))


def draw_timeline(spans: Sequence[Span], path: Path, first: int = 0, number: int = 12) -> None:
    """Draw who works on which batch when.

    Args:
        spans: The spans.
        path: The picture's file.
        first: The first iteration to draw; nothing is drawn if there is none from it on.
        number: The number of iterations.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [span for span in spans if first <= span.iteration < first + number]
    if not drawn:
        return
    processes = max(span.process for span in drawn) + 1
    zero = min(span.start for span in drawn)
    figure = Figure(figsize=(10, 0.8 + 0.6 * processes), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = colormaps['tab10']
    for span in drawn:
        length = span.end - span.start
        color = colors(span.iteration % 10)
        axes.barh(span.process, length, left=span.start - zero, color=color, edgecolor='white')
        same = [s for s in drawn if s[:2] == span[:2]]
        if span == max(same, key=lambda s: s.end - s.start):
            axes.text(span.start - zero + length / 2, span.process, str(span.iteration), ha='center', va='center')
    axes.set_yticks(range(processes), [f'process {p}' for p in range(processes)])
    axes.invert_yaxis()
    axes.set_xlabel('seconds; the number is the batch')
    figure.savefig(path, dpi=120)
