"""Tables and plots of measurements."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from ..mode import Mode
from .live_bytes import Held

if TYPE_CHECKING:
    from .measure import Measurement
    from .predict import Prediction

Measured = Mapping[str, 'Measurement']


def table(results: Measured) -> str:
    """Format a table of each mode's peak, work, operators, synchronizations and time, relative to the first mode.

    On a GPU, it also has the allocator's peak and the device's time. *Work* is floating-point operations.
    """
    reference = next(iter(results.values()))
    on_gpu = reference.allocated_bytes is not None
    head = f'{"mode":<42}{"peak MB":>10}{"ratio":>8}' + (f'{"allocated MB":>14}' if on_gpu else '')
    head += f'{"work":>8}{"operators":>11}{"ratio":>7}{"syncs":>7}{"seconds":>10}{"ratio":>7}{"spread":>9}'
    lines = [head + (f'{"device s":>10}{"ratio":>7}' if on_gpu else '')]
    for mode, found in results.items():
        line = f'{mode:<42}{found.peak_bytes / 1e6:>10.0f}{found.peak_bytes / reference.peak_bytes:>8.3f}'
        if found.allocated_bytes is not None:
            line += f'{found.allocated_bytes / 1e6:>14.0f}'
        line += (
            f'{found.flops / reference.flops:>8.3f}{found.operators:>11}'
            f'{found.operators / reference.operators:>7.2f}{found.synchronisations:>7}'
            f'{found.step_seconds:>10.3f}{found.step_seconds / reference.step_seconds:>7.2f}'
            f'{found.step_seconds_spread:>9.3f}'
        )
        if found.device_seconds is not None and reference.device_seconds is not None:
            line += f'{found.device_seconds:>10.3f}{found.device_seconds / reference.device_seconds:>7.2f}'
        lines.append(line)
    return '\n'.join(lines)


def peak_table(held: Sequence[Held]) -> str:
    """Format a table of the storages alive at the peak, the largest first."""
    lines = [f'{"MB":>8}  {"shape":<26}{"made in":<10}{"operator":<34}module']
    for item in held:
        lines.append(
            f'{item.nbytes / 1e6:>8.1f}  {item.shape!s:<26}{"backward" if item.backward else "forward":<10}'
            f'{item.operator:<34}{item.module}'
        )
    return '\n'.join(lines)


def plot_modes(results: Measured, title: str, path: 'str | Path') -> None:
    """Plot peak and, if measured, step time of each mode as bars to a PNG."""
    panels = [('peak of live tensors, MB', [found.peak_bytes / 1e6 for found in results.values()])]
    if not any(found.step_seconds != found.step_seconds for found in results.values()):
        panels.append(('forward and backward, s', [found.step_seconds for found in results.values()]))
    figure, axes = _figure(len(panels), height=1.2 + 0.35 * len(results))
    names = [mode.replace('_', ' ') for mode in results]
    for index, (place, (label, values)) in enumerate(zip(axes, panels, strict=True)):
        bars = place.barh(
            names, values, color=['tab:green' if Mode.parse(mode).local else 'tab:blue' for mode in results]
        )
        place.bar_label(bars, [f'{value / values[0]:.2f}' for value in values], padding=3)
        place.set(xlabel=label, xlim=(0, 1.15 * max(values)))
        place.invert_yaxis()
        place.tick_params(labelleft=index == 0)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def plot_sweep(rows: Sequence[tuple[str, Measured]], title: str, path: 'str | Path') -> None:
    """Plot each mode's peak and, if measured, step time over the variants to a PNG."""
    modes = list(rows[0][1])
    panels = [('peak of live tensors, MB', lambda found: found.peak_bytes / 1e6)]
    if not any(found.step_seconds != found.step_seconds for _, results in rows for found in results.values()):
        panels.append(('forward and backward, s', lambda found: found.step_seconds))
    figure, axes = _figure(len(panels), height=4)
    for place, (label, value) in zip(axes, panels, strict=True):
        for mode in modes:
            values = [value(results[mode]) for _, results in rows]
            place.plot([name for name, _ in rows], values, marker='o', label=mode.replace('_', ' '))
        place.set(ylabel=label, ylim=(0, None))
        place.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _figure(panels: int, height: float) -> tuple:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * panels, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def ways_table(found: 'Sequence[Prediction]', room: int | None, size: tuple[int, int], batches: bool = True) -> str:
    """Format a table of ways to train: total, peak, ratio to end-to-end, work, whether it fits, largest batch.

    Args:
        found: The ways, end-to-end training first.
        room: Bytes available for everything; None omits the last two columns.
        size: Height and width of the images in pixels.
        batches: Whether other batches can be predicted.
    """
    header = f'{"training":<46}{"total":>10}{"peak":>10}{"ratio":>8}{"work":>7}'
    lines = [header + ('' if room is None else f'{"fits":>6}{"batch":>7}')]
    for item in found:
        line = (
            f'{item.way!s:<46}{gib(item.total_bytes):>10}{gib(item.peak_bytes):>10}'
            f'{item.peak_bytes / found[0].peak_bytes:>8.3f}{item.work:>7.2f}'
        )
        if room is not None:
            batch = item.largest_batch(room, size) if batches else '-'
            line += f'{"yes" if item.total_bytes <= room else "no":>6}{batch:>7}'
        if item.way.cuts:
            line += f'  cuts={[tuple(cut) for cut in item.way.cuts]}'
        lines.append(line)
    return '\n'.join(lines)


def gib(number: float) -> str:
    """Format a number of bytes."""
    return f'{number / 2**30:.2f} GiB' if number >= 2**30 else f'{number / 2**20:.0f} MiB'


def at_least(number: float) -> str:
    """Format a number of bytes, rounded up, for ``--memory``."""
    return f'{ceil(number / 2**30 * 100) / 100:.2f}GiB' if number >= 2**30 else f'{ceil(number / 2**20)}MiB'
