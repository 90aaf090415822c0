"""Training curves from the scalars that a Runner wrote."""

import json
import re
from collections import defaultdict
from pathlib import Path

Curves = dict[str, list[tuple[int, float]]]
"""(iteration, value) pairs by logged name."""


def read_scalars(folder: 'str | Path') -> Curves:
    """Read the training scalars of a work folder; resumed runs are joined.

    Args:
        folder: A Runner's ``work_dir``, one run's folder in it, or a ``scalars.json``.

    Returns:
        The curves. If runs overlap, the later one counts.

    Raises:
        FileNotFoundError: There is no ``scalars.json``.
    """
    folder = Path(folder)
    files = [folder] if folder.is_file() else sorted(folder.rglob('vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'{folder} has no vis_data/scalars.json: give the work_dir of a training')
    steps: dict[int, dict[str, float]] = {}
    for file in files:
        for line in map(json.loads, file.read_text().splitlines()):
            if 'loss' in line:  # not from a validation
                steps[line.get('iter', line['step'])] = line
    curves: Curves = defaultdict(list)
    for step, line in sorted(steps.items()):
        for name, value in line.items():
            if isinstance(value, (int, float)):
                curves[name].append((step, value))
    return dict(curves)


def plot_training(curves: Curves, path: 'str | Path') -> None:
    """Plot block losses, scaling biases and momentum distances to a PNG.

    Args:
        curves: The result of :func:`read_scalars`.
        path: The file.

    Raises:
        ValueError: The training was not block-local, so the curves have no block losses.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = sorted({int(m[1]) for name in curves if (m := re.match(r'block(\d+)\..*loss', name))})
    if not blocks:
        raise ValueError('the scalars have no block losses: this training was not block-local')
    panels: list[tuple[str, Curves]] = []
    losses = {name: _total(curves, rf'block{block}\..*loss') for block in blocks for name in [f'block {block}']}
    losses['last block and heads'] = _total(curves, r'(?!block\d)(?!loss$).*loss')
    panels.append(('sum of losses', losses))
    for title, key in (('scaling bias s', 'scaling'), ('distance of the momentum branch', 'momentum_distance')):
        found = {f'block {block}': curves.get(f'block{block}.{key}', []) for block in blocks}
        if any(found.values()):
            panels.append((title, found))
    figure = Figure(figsize=(5 * len(panels), 4), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, (title, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, curve in found.items():
            if curve:
                axes.plot(*zip(*curve, strict=True), label=name)
        axes.set(title=title, xlabel='iteration')
        axes.legend()
    figure.savefig(path, dpi=120)


def _total(curves: Curves, pattern: str) -> list[tuple[int, float]]:
    """Return the sum of all curves whose names match."""
    total: dict[int, float] = defaultdict(float)
    for name, curve in curves.items():
        if re.match(pattern, name):
            for step, value in curve:
                total[step] += value
    return sorted(total.items())
