"""Tables and curves of a comparison."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from ..mode import END_TO_END, FROZEN
from .grid import final

_REFERENCES = (str(END_TO_END), str(FROZEN))
_TITLES = dict(
    end_to_end='to end-to-end', frozen='to frozen', front_frozen='to front frozen', present='to present'
)  # fmt: skip


def results_table(results: Sequence[dict]) -> str:
    """Format a Markdown table: mean, standard deviation, paired differences with 95 % intervals, share of gap closed.

    The metrics are those of the last validation, in points (per cent). The differences are to end-to-end, to frozen
    and, if among the variants, to ``front_frozen`` and to the label ``present``, a setting that another may replace.
    They are paired by seed, over the seeds that both have, with Student's interval. The share of the gap is
    (variant - frozen) / (end-to-end - frozen) of the means.

    Args:
        results: The results from :func:`manpp_mm.comparison.run_grid`.
    """
    points = by_variant(results)
    references = [name for name in _TITLES if name in _REFERENCES or name in points]
    titles = [_TITLES[name] for name in references]
    head = ['variant', 'seeds', results[0]['metric'], *titles, 'gap closed', 'peak MB', 's/step']
    lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    for name, seeds in points.items():
        values = np.array(list(seeds.values()))
        own = [result for result in results if result['variant'] == name]
        spread = f' ± {values.std(ddof=1):.2f}' if len(values) > 1 else ''
        differences = [difference(seeds, points.get(other)) if name != other else '' for other in references]
        peak = max(result['peak_bytes'] for result in own) / 1e6
        seconds = np.median([result['seconds'] / result['iterations'] for result in own])
        lines.append(
            f'| {name} | {len(values)} | {values.mean():.2f}{spread} | {" | ".join(differences)} | '
            f'{gap_closed(name, points)} | {peak:.0f} | {seconds:.3f} |'
        )
    return '\n'.join(lines)


def by_variant(results: Sequence[dict]) -> dict[str, dict[int, float]]:
    """Return the final metric in points, by variant and seed."""
    found: dict[str, dict[int, float]] = {}
    for result in results:
        found.setdefault(result['variant'], {})[result['seed']] = in_points(final(result), result['metric'])
    return found


def in_points(value: float, metric: str) -> float:
    """Convert a metric to per cent: COCO's are fractions, MMSegmentation's are already per cent."""
    return value * 100 if metric.startswith('coco/') else value


def difference(own: dict[int, float], other: 'dict[int, float] | None') -> str:
    """Format the mean of the paired differences and its 95 % interval, '' without a common seed."""
    other = other or {}
    common = sorted(own.keys() & other.keys())
    if not common:
        return ''
    values = np.array([own[seed] - other[seed] for seed in common])
    if len(values) == 1:
        return f'{values[0]:+.2f}'
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f'{values.mean():+.2f} [{values.mean() - half:+.2f}, {values.mean() + half:+.2f}]'


def gap_closed(name: str, points: dict[str, dict[int, float]]) -> str:
    """Format the share of the gap between frozen and end-to-end that is closed; '' if one of them is missing."""
    if name in _REFERENCES or not all(reference in points for reference in _REFERENCES):
        return ''
    common = sorted(set.intersection(*(set(points[key]) for key in (name, *_REFERENCES))))
    if not common:
        return ''
    own, whole, frozen = (np.mean([points[key][seed] for seed in common]) for key in (name, *_REFERENCES))
    return f'{(own - frozen) / (whole - frozen):.0%}' if whole > frozen else 'no gap'


def curves_plot(results: Sequence[dict], path: 'str | Path') -> None:
    """Plot the metric over iterations, training time and peak memory to a PNG.

    Args:
        results: The results from :func:`manpp_mm.comparison.run_grid`.
        path: The file.
    """
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot

    metric = results[0]['metric']
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.5), sharey=True)
    for index, name in enumerate(by_variant(results)):
        own = [result for result in results if result['variant'] == name]
        curves = [{line['iteration']: line for line in result['curve']} for result in own]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        values = np.array([[in_points(curve[s]['metrics'][metric], metric) for s in steps] for curve in curves])
        seconds = np.array([[curve[s]['seconds'] for s in steps] for curve in curves]).mean(0)
        color = f'C{index % 10}'
        for axis, x in ((axes[0], steps), (axes[1], seconds)):
            axis.plot(x, values.mean(0), 'o-', color=color, label=name, markersize=3)
            axis.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
        peak = max(result['peak_bytes'] for result in own) / 1e6
        last = values[:, -1]
        spread = last.std(ddof=1) if len(last) > 1 else 0
        axes[2].errorbar(peak, last.mean(), yerr=spread, fmt='o', color=color, capsize=3)
        axes[2].annotate(name, (peak, last.mean()), xytext=(5, 5), textcoords='offset points', fontsize=8)
    for axis, label in zip(
        axes, ('iterations', 'seconds of training', f'peak MB ({results[0]["peak_is"]})'), strict=True
    ):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[2].margins(x=0.2)  # room for the names
    axes[0].set_ylabel(f'{metric}, points')
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
