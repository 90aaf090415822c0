"""One run of a comparison, in a separate process: ``python -m manpp_mm.comparison.run CONFIG JSON``."""

import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

from ..checks.files import check_data
from ..compat.mmpretrain import complete_loaders
from ..memory.footprint import footprint, padded
from ..memory.inputs import training_input

CURVE = 'curve.jsonl'
_KEY = 'comparison'
_PACKAGES = (
    'torch',
    'torchvision',
    'mmengine',
    'mmcv',
    'mmcv-lite',
    'mmdet',
    'mmsegmentation',
    'mmpretrain',
    'manpp-mm',
)


class CurveHook(Hook):
    """Writes the metrics of each validation with the iteration and the training time so far, without validation."""

    priority = 'LOWEST'

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0
        self.peak = 0
        self._since: float | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.seconds, self.peak = checkpoint.get('meta', {}).get(_KEY, (0.0, 0))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta'][_KEY] = (self.seconds, self.peak)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._since is None:  # the first, or the first after a validation
            self._since = time.perf_counter()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        assert self._since is not None  # before_train_iter sets it
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now
        if torch.cuda.is_available():
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())

    def before_val(self, runner: Runner) -> None:
        self._since = None

    def after_val_epoch(self, runner: Runner, metrics: 'dict[str, float] | None' = None) -> None:
        with self.path.open('a') as file:
            values = {name: float(value) for name, value in (metrics or {}).items()}
            line = dict(iteration=runner.iter, seconds=round(self.seconds, 2), metrics=values)
            file.write(json.dumps(line) + '\n')


def run(config: Config) -> dict[str, Any]:
    """Train and validate; an interrupted run continues.

    Args:
        config: The config of a variant. Its ``comparison`` is copied to the result and contains ``initial``, the
            initial weights; ``modes``, those of :data:`manpp_mm.mode.MODES` that the run goes through; and ``local``,
            the settings of block-local training.

    Returns:
        ``comparison`` and: ``curve``, the metrics of each validation; ``seconds`` of training; ``peak_bytes`` and how
        they were obtained; device and versions.
    """
    work_dir = Path(config.work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    latest = find_latest_checkpoint(config.work_dir) if (work_dir / 'last_checkpoint').exists() else None
    config.resume, config.load_from = latest is not None, latest or config.comparison.initial
    check_data(config, 'train', 'val')
    cuda = torch.cuda.is_available()
    peaks = None if cuda else _predicted_peak(config)
    hook = CurveHook(work_dir / CURVE)
    complete_loaders(config)
    runner = Runner.from_cfg(config)
    runner.register_hook(hook)
    runner.train()
    if not _curve(work_dir) or _curve(work_dir)[-1]['iteration'] < runner.max_iters:
        runner.val_loop.run()  # the run was killed after its last checkpoint
    return dict(
        **config.comparison.to_dict() | dict(initial=Path(config.comparison.initial).name),
        iterations=runner.max_iters,
        curve=_curve(work_dir),
        seconds=round(hook.seconds, 1),
        peak_bytes=hook.peak if cuda else peaks,
        peak_is='max_memory_allocated' if cuda else 'live bytes beyond parameters and images, predicted',
        device=torch.cuda.get_device_name() if cuda else f'{platform.machine()} CPU, {torch.get_num_threads()} threads',
        versions=_versions(),
    )


def _curve(work_dir: Path) -> list[dict]:
    """Return the validations by iteration; a resumed run may have repeated one."""
    path = work_dir / CURVE
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for _, line in sorted({line['iteration']: line for line in lines}.items())]


def _predicted_peak(config: Config) -> int:
    batch, size = training_input(config)
    return max(footprint(config, mode).peak_at(batch, padded(config, size)) for mode in config.comparison.modes)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    config, target = Config.fromfile(sys.argv[1]), Path(sys.argv[2])
    result = run(config)
    partial = target.with_suffix('.partial')
    partial.write_text(json.dumps(result, indent=1))
    os.replace(partial, target)


if __name__ == '__main__':
    main()
