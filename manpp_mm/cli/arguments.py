"""Command-line flags that the tools share, and how they change a config."""

import argparse
import os
import os.path as osp
from copy import deepcopy

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device

from ..checkpoint_file import check_checkpoint_file
from ..checks.config_keys import merge_options
from ..checks.files import innermost, way_to_data
from ..compat.config_prefix import read_config
from ..memory.budget import budget_bytes
from ..memory.inputs import in_mixed_precision
from ..methods import METHODS
from .errors import add_traceback_argument


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``config``: a file, or a config of a package."""
    parser.add_argument('config', help='config file, or a config of a package: mmdet::..., mmseg::..., manpp_mm::...')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share, named as in MMLab's tools."""
    parser.add_argument('--work-dir', help='folder for logs and results (default: work_dirs/CONFIG)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config keys: key=value; write a list as key="[a,b]" or key=a,b, without spaces',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    add_traceback_argument(parser)
    # torch.distributed.launch and mim pass one or the other.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_check_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--no-check``."""
    parser.add_argument('--no-check', action='store_true', help='skip the checks of data and annotations at the start')


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a training in one process or several."""
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (needs a GPU)')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without a path, from the latest one in the work folder',
    )


def add_fitting_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that fit a config to a memory budget and a method."""
    parser.add_argument(
        '--memory',
        metavar='SIZE',
        type=_size,
        help="memory budget on the device: '8GiB', or 'auto' for what is free now; about a tenth of it is left as "
        'headroom. Without --method, the way with the least work that keeps end-to-end gradients is used',
    )
    parser.add_argument('--method', choices=METHODS, help='train with this method, planned to fit the budget')


def _size(text: str) -> str:
    try:
        budget_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from error
    return text


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the common flags.

    Raises:
        ValueError: ``--cfg-options`` sets ``data_root`` or another key that nothing reads.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = args.cfg_options or {}
    config = read_config(args.config)
    if 'data_root' in options:
        raise ValueError(
            '--cfg-options data_root=... changes nothing: paths are expanded when the config is read. Instead, '
            f'{way_to_data(config)}set data_root of each *_dataloader.dataset and the paths of the evaluators'
        )
    merge_options(config, options)
    config.launcher = args.launcher
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return config


def apply_training_arguments(config: Config, args: argparse.Namespace) -> None:
    """Apply the flags of :func:`add_training_arguments` to a config.

    Raises:
        ValueError, FileNotFoundError: A flag does not fit the config or this machine, or the checkpoint to load is
            missing.
    """
    if args.amp:
        enable_amp(config)
    check_device(config)
    if args.auto_scale_lr:
        enable_auto_scale_lr(config)
    if args.resume is not None:
        enable_resume(config, args.resume)
    check_checkpoint_file(config.get('load_from'), '--resume' if config.get('resume') else 'load_from')


def enable_amp(config: Config) -> None:
    """Turn on automatic mixed precision.

    Raises:
        ValueError: The type of the optimizer wrapper has no AMP counterpart.
    """
    kind = config.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f"--amp needs optim_wrapper.type='OptimWrapper', not {kind!r}")
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.setdefault('loss_scale', 'dynamic')


def check_device(config: Config) -> None:
    """Check that this machine can train in the config's precision.

    Raises:
        ValueError: The config uses mixed precision and there is no GPU.
    """
    if in_mixed_precision(config) and get_device() not in ('cuda', 'npu', 'mlu', 'musa'):
        raise ValueError("mixed precision (--amp, optim_wrapper.type='AmpOptimWrapper') needs a GPU: train without it")


def enable_auto_scale_lr(config: Config) -> None:
    """Scale the learning rate with the batch size.

    Raises:
        ValueError: The config does not set the batch size that its learning rate is meant for.
    """
    if 'base_batch_size' not in config.get('auto_scale_lr', {}):
        raise ValueError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config')
    config.auto_scale_lr.enable = True


def enable_resume(config: Config, checkpoint: str) -> None:
    """Resume from a checkpoint, or from the latest one of the work folder for ``'auto'``."""
    config.resume = True
    config.load_from = None if checkpoint == 'auto' else checkpoint


def enable_painting(config: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Paint each tested image, in a window or to a folder.

    Raises:
        ValueError: The config has no visualization hook.
    """
    hook = config.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need default_hooks.visualization in the config')
    if _scope(config) == 'mmpretrain':
        hook.update(enable=True, show=show, wait_time=wait_time, interval=1, out_dir=show_dir)
        return
    hook.update(draw=True, show=show, wait_time=wait_time, interval=1)
    if show_dir is not None and _scope(config) == 'mmseg':
        config.visualizer.save_dir = show_dir
    elif show_dir is not None:
        hook.test_out_dir = osp.abspath(show_dir)  # else inside the work folder's run


def enable_tta(config: Config) -> None:
    """Enable test-time augmentation by the config's ``tta_model`` and ``tta_pipeline``.

    Detectors and classifiers use flips by default.

    Raises:
        ValueError: A segmentor's config lacks these keys, or painting is requested for a classifier.
    """
    scope = _scope(config)
    if scope == 'mmpretrain' and (config.default_hooks.get('visualization') or {}).get('enable'):
        raise ValueError(
            '--tta: MMPretrain cannot paint images in a test with augmentation; omit --show and --show-dir'
        )
    if scope == 'mmseg':
        if 'tta_model' not in config or 'tta_pipeline' not in config:
            raise ValueError('--tta needs tta_model and tta_pipeline in the config')
    else:
        nms = dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
        own = dict(type='AverageClsScoreTTA') if scope == 'mmpretrain' else dict(type='DetTTAModel', tta_cfg=nms)
        config.setdefault('tta_model', own)
        if 'tta_pipeline' not in config:
            config.tta_pipeline = deepcopy(innermost(config.test_dataloader.dataset).pipeline)
            meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
            flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
            pack = config.tta_pipeline[-1] if scope == 'mmpretrain' else dict(type='PackDetInputs', meta_keys=meta)
            config.tta_pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pack]])
    config.model = ConfigDict(**config.tta_model, module=config.model)
    innermost(config.test_dataloader.dataset).pipeline = config.tta_pipeline


def enable_output(config: Config, out: str) -> None:
    """Save the predictions: a pickle file for a detector or classifier, a folder of label maps for a segmentor.

    Raises:
        ValueError: The file does not end in .pkl or .pickle.
    """
    evaluator = config.test_evaluator
    metrics = list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
    if _scope(config) == 'mmseg':
        metrics[0].update(output_dir=out)
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'--out {out}: the file name must end in .pkl or .pickle')
    kind = 'DumpResults' if _scope(config) == 'mmpretrain' else 'DumpDetResults'
    config.test_evaluator = [*metrics, dict(type=kind, out_file_path=out)]


def _scope(config: Config) -> str | None:
    return config.get('default_scope')
