"""A grid of variants and seeds; finished runs are kept, interrupted ones continue."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint, set_random_seed

from ..backbones import mode_of
from ..compat.config_prefix import read_config
from ..memory.training_step import without_init_log
from ..mode import END_TO_END, FROZEN
from .variants import Variant, parse_variant, variant_config

_METRICS = ('coco/bbox_mAP', 'mIoU', 'accuracy/top1')
_LOCAL_KEYS = ('cuts', 'local_blocks', 'gradient', 'lateral_gradient', 'auxiliary')


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        variant: The variant of the config.
        seed: Seed for initial weights, data order and augmentation.
    """

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """The name of its files and folder."""
        return re.sub(r'[^\w.+=-]+', '-', f'{self.variant.name}_seed{self.seed}')


def run_grid(
    config_path: 'str | Path',
    cells: Sequence[Cell],
    out: 'str | Path',
    work_dir: 'str | Path',
    *,
    options: 'dict | None' = None,
    metric: str | None = None,
    stretch: float = 0.25,
    jobs: int = 1,
    progress: Callable[[str], None] = print,
) -> tuple[list[dict], list[str]]:
    """Train every cell that is not finished and read the results.

    Args:
        config_path: A block-local config; :func:`variant_config` describes how its variants differ.
        cells: The grid.
        out: Folder for ``NAME.json``, one per run.
        work_dir: Folder for configs, logs and checkpoints; an interrupted run resumes from its latest checkpoint there.
        options: Config keys to set in every cell.
        metric: The validation metric to report; None for box AP, mIoU or accuracy.
        stretch: Fraction of the schedule that ``_exact_`` variants train with exact gradients.
        jobs: Number of runs at a time; they share the CPU's cores.
        progress: Called with a line after each run.

    Returns:
        The results and the names of the cells that failed; their logs are ``WORK_DIR/NAME.log``.

    Raises:
        ValueError: A result in ``out`` is from another config, a variant does not fit the config, two cells have the
            same name, or a result lacks the metric.
    """
    names = [cell.name for cell in cells]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ValueError(f'{", ".join(sorted(doubled))} occurs twice in the grid: give the variants different labels')
    out, work_dir = Path(out), Path(work_dir)
    out.mkdir(parents=True, exist_ok=True)
    work_dir.mkdir(parents=True, exist_ok=True)
    base = read_config(config_path)
    base.merge_from_dict(options or {})
    waiting = []
    for cell in cells:
        config = cell_config(base, cell, stretch)
        digest = _digest(config)
        config.work_dir = str(work_dir / f'{cell.name}-{digest[:8]}')
        config.comparison = dict(
            variant=cell.variant.name,
            definition=cell.variant.definition,
            seed=cell.seed,
            config=str(config_path),
            options=options or {},
            stretch=stretch if cell.variant.exact else None,
            modes=_modes(config, cell.variant),
            local={key: config.model.backbone[key] for key in _LOCAL_KEYS if key in config.model.backbone},
            initial=str(_initial_path(base, cell.seed, work_dir)),
            digest=digest,
        )
        result = out / f'{cell.name}.json'
        if result.exists():
            if json.loads(result.read_text())['digest'] != digest:
                raise ValueError(
                    f'{result} is from another config, schedule or stretch: move it away, or set another --out'
                )
            progress(f'{cell.name}: already done')
            continue
        config.dump(work_dir / f'{cell.name}.py')
        waiting.append((cell, result))
    for seed in sorted({cell.seed for cell, _ in waiting}):
        _initial_weights(base, seed, _initial_path(base, seed, work_dir))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed: list[str] = []

    def train(item: tuple[Cell, Path]) -> None:
        cell, result = item
        command = [sys.executable, '-m', 'manpp_mm.comparison.run', str(work_dir / f'{cell.name}.py'), str(result)]
        with (work_dir / f'{cell.name}.log').open('w') as log:
            environment = {'OMP_NUM_THREADS': str(threads)} | os.environ
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
        if code:
            failed.append(cell.name)
        progress(f'{cell.name}: {"failed, see its log" if code else "done"}')

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, waiting))
    return read_results([out / f'{cell.name}.json' for cell in cells], metric), failed


def read_results(paths: Iterable[Path], metric: str | None = None) -> list[dict]:
    """Read the results of runs.

    Args:
        paths: Their JSON files; missing ones are skipped.
        metric: The validation metric to report; None for box AP, mIoU or accuracy.

    Raises:
        ValueError: A result lacks the metric.
    """
    results = []
    for path in paths:
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        present = result['curve'][-1]['metrics']
        own = metric or next((name for name in _METRICS if name in present), ' or '.join(_METRICS))
        if own not in present:
            raise ValueError(f'--metric {own}: the validation of {result["config"]} gives only {", ".join(present)}')
        results.append(result | dict(metric=own))
    return results


def cell_config(base: Config, cell: Cell, stretch: float) -> Config:
    """Return the config of one run, without its folder."""
    config = variant_config(base, cell.variant, stretch)
    config.randomness = dict(config.get('randomness') or {}, seed=cell.seed)
    config.experiment_name = cell.name
    # cuDNN's search for the fastest algorithm tries workspaces of many GB, which would set the peak of every variant.
    config.env_cfg = dict(config.get('env_cfg') or {}, cudnn_benchmark=False)
    return config


def final(result: dict) -> float:
    """Return the metric of a run's last validation, as logged."""
    return result['curve'][-1]['metrics'][result['metric']]


def _modes(config: Config, variant: Variant) -> list[str]:
    """Return the modes that a run goes through."""
    own = FROZEN if variant.kind == str(FROZEN) else mode_of(config)
    return [str(mode) for mode in ([own, own.with_exact_gradients()] if variant.exact else [own])]


def _digest(config: Config) -> str:
    """Return a digest of everything that a result depends on.

    This excludes its folder and the variables of ``configs/_base_/``, which act only where a config places them.
    """
    whole = config.to_dict()
    kept = {key: value for key, value in whole.items() if key != 'work_dir' and not key.startswith('manpp_')}
    return hashlib.sha256(Config(kept).pretty_text.encode()).hexdigest()[:16]


def _plain(base: Config) -> Config:
    return variant_config(base, parse_variant(str(END_TO_END)), 0.0)


def _initial_path(base: Config, seed: int, work_dir: Path) -> Path:
    plain = _plain(base)
    digest = hashlib.sha256(f'{plain.model.to_dict()}{base.get("load_from")}'.encode()).hexdigest()[:8]
    return work_dir / f'initial_seed{seed}-{digest}.pth'


def _initial_weights(base: Config, seed: int, path: Path) -> None:
    """Write the initial weights for every variant of a seed: the plain model's, with the config's ``load_from``."""
    if path.exists():
        return
    init_default_scope(base.get('default_scope', 'mmengine'))
    set_random_seed(seed)
    model = MODELS.build(_plain(base).model)
    with without_init_log():
        model.init_weights()
    if base.get('load_from'):
        load_checkpoint(model, base.load_from, map_location='cpu')
    partial = path.with_suffix('.partial')
    torch.save(dict(state_dict=model.state_dict()), partial)
    os.replace(partial, path)
