"""Run a grid of variants and seeds; what is done is kept, what was interrupted goes on."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import set_random_seed

from .variants import Variant, variant_config

METRICS = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU'}
_THREADS = 'OMP_NUM_THREADS'


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Attributes:
        variant: What it changes.
        seed: Of initial weights, data order and augmentation.
    """

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Of its files and folder."""
        return f'{self.variant.name}_seed{self.seed}'.replace('/', '-')


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
    """Train every cell that is not done yet and read the results.

    Args:
        config_path: A block-local config; its variants differ in what :func:`variant_config` says.
        cells: The grid.
        out: Folder for ``NAME.json``, one each run.
        work_dir: Folder for configs, logs and checkpoints; an interrupted run goes on from its latest checkpoint there.
        options: Config keys that are set in every cell.
        metric: The validation metric that counts; None: box AP or mIoU.
        stretch: Share of the schedule that ``_exact_`` variants train by exact gradients.
        jobs: Runs side by side, each with its share of the CPU's cores.
        progress: Called with a line after each run.

    Returns:
        The results and the names of the cells that failed; their logs are ``WORK_DIR/NAME.log``.

    Raises:
        ValueError: A result in ``out`` was made with another config.
    """
    out, work_dir = Path(out), Path(work_dir)
    out.mkdir(parents=True, exist_ok=True)
    work_dir.mkdir(parents=True, exist_ok=True)
    base = Config.fromfile(config_path)
    base.merge_from_dict(options or {})
    base.dump(work_dir / 'base.py')
    metric = metric or METRICS[base.get('default_scope', 'mmdet')]
    waiting = []
    for cell in cells:
        config = cell_config(base, cell, work_dir, stretch)
        config.comparison = dict(
            variant=cell.variant.name,
            seed=cell.seed,
            metric=metric,
            config=str(config_path),
            options=options or {},
            stretch=stretch if cell.variant.exact else None,
            modes=_modes(config, cell.variant),
            local_backbone=config.model.backbone if cell.variant.local else base.model.backbone,
            base=str(work_dir / 'base.py'),
            initial=str(work_dir / f'initial_seed{cell.seed}.pth'),
            digest=_digest(config),
        )
        result = out / f'{cell.name}.json'
        if result.exists():
            if json.loads(result.read_text())['digest'] != config.comparison.digest:
                raise ValueError(
                    f'{result} was made with another config, schedule or stretch: move it away, or give another --out'
                )
            progress(f'{cell.name}: done before')
            continue
        config.dump(work_dir / f'{cell.name}.py')
        waiting.append((cell, result))
    for seed in sorted({cell.seed for cell, _ in waiting}):
        _initial_weights(base, seed, work_dir / f'initial_seed{seed}.pth')
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed: list[str] = []

    def train(item: tuple[Cell, Path]) -> None:
        cell, result = item
        command = [sys.executable, '-m', 'manpp_mm.comparison.run', work_dir / f'{cell.name}.py', result]
        with (work_dir / f'{cell.name}.log').open('w') as log:
            environment = {_THREADS: str(threads)} | os.environ
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
        if code:
            failed.append(cell.name)
        progress(f'{cell.name}: {"failed, see its log" if code else final(json.loads(result.read_text()))}')

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train, waiting))
    results = [out / f'{cell.name}.json' for cell in cells]
    return [json.loads(path.read_text()) for path in results if path.exists()], failed


def cell_config(base: Config, cell: Cell, work_dir: Path, stretch: float) -> Config:
    """The config of one run."""
    config = variant_config(base, cell.variant, stretch)
    config.randomness = dict(config.get('randomness') or {}, seed=cell.seed)
    config.work_dir = str(work_dir / cell.name)
    config.experiment_name = cell.name
    return config


def final(result: dict) -> float:
    """The metric of a run's last validation, as it was logged."""
    return result['curve'][-1]['metrics'][result['metric']]


def _modes(config: Config, variant: Variant) -> list[str]:
    if not variant.local:
        return [variant.kind]
    if config.model.backbone.get('gradient') == 'exact':
        return ['exact']
    local = 'local_checkpointed' if config.model.backbone.get('with_cp') else 'local'
    return [local, 'exact'] if variant.exact else [local]


def _digest(config: Config) -> str:
    """Of everything that a result depends on: not the folder it is made in."""
    kept = {key: value for key, value in config.to_dict().items() if key not in ('work_dir', 'comparison')}
    return hashlib.sha256(Config(kept).pretty_text.encode()).hexdigest()[:16]


def _initial_weights(base: Config, seed: int, path: Path) -> None:
    """Write the weights that every variant of a seed starts from: the plain model's."""
    if path.exists():
        return
    config = variant_config(base, Variant('end_to_end', 'end_to_end'), 0.0)
    init_default_scope(config.get('default_scope', 'mmengine'))
    set_random_seed(seed)
    model = MODELS.build(config.model)
    model.init_weights()
    partial = path.with_suffix('.partial')
    torch.save(dict(state_dict=model.state_dict()), partial)
    os.replace(partial, path)
