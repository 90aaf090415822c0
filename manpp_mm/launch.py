"""From a config and a tool's flags to a Runner: what ``tools/train.py`` and ``tools/test.py`` share."""

import argparse
import atexit
import logging
import os
import os.path as osp
import re
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.fileio import load
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import CheckpointLoader, Runner, find_latest_checkpoint

from .hooks.changed_keys import trained_config
from .models.plain import is_local
from .profiling.plan import apply_cuts, plan_config, predicted_peak

_ROOTS = {'coco_root': 'COCO_ROOT', 'cityscapes_root': 'CITYSCAPES_ROOT', 'demo_root': 'DEMO_ROOT'}
"""Variables of our configs and the environment variables that they read."""


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that training and testing share, as MMDetection's and MMSegmentation's tools name them."""
    parser.add_argument('--work-dir', help='folder for logs and results; default work_dirs/CONFIG')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config keys: key=value; a list as key="[a,b]" or key=a,b, without white space',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch and mim pass one or the other.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply the common flags.

    Raises:
        ValueError: ``--cfg-options data_root=...``, which would change nothing.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    options = args.cfg_options or {}
    config = Config.fromfile(args.config)
    if 'data_root' in options:
        raise ValueError(
            '--cfg-options data_root=... changes nothing: the paths are expanded when the config is read. Instead '
            f'{_way_to_data(config)}set data_root of each *_dataloader.dataset and the paths of the evaluators'
        )
    config.merge_from_dict(options)
    config.launcher = args.launcher
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    return config


def enable_amp(config: Config) -> None:
    """Turn on automatic mixed precision.

    Raises:
        ValueError: The optimizer wrapper is of a type that has no AMP twin.
    """
    kind = config.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(f'--amp needs optim_wrapper.type OptimWrapper, not {kind!r}')
    config.optim_wrapper.type = 'AmpOptimWrapper'
    config.optim_wrapper.setdefault('loss_scale', 'dynamic')


def enable_auto_scale_lr(config: Config) -> None:
    """Scale the learning rate with the batch.

    Raises:
        ValueError: The config does not say for which batch its learning rate is.
    """
    if 'base_batch_size' not in config.get('auto_scale_lr', {}):
        raise ValueError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config')
    config.auto_scale_lr.enable = True


def enable_resume(config: Config, checkpoint: str) -> None:
    """Resume from a checkpoint, or from the latest one of the work folder for ``'auto'``."""
    config.resume = True
    config.load_from = None if checkpoint == 'auto' else checkpoint


def enable_painting(config: Config, show: bool, show_dir: str | None, wait_time: float) -> None:
    """Paint each tested image, into a window or a folder.

    Raises:
        ValueError: The config has no visualization hook.
    """
    hook = config.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError('--show and --show-dir need default_hooks.visualization in the config')
    hook.update(draw=True, show=show, wait_time=wait_time, interval=1)
    if show_dir is not None and _is_segmentation(config):
        config.visualizer.save_dir = show_dir
    elif show_dir is not None:
        hook.test_out_dir = osp.abspath(show_dir)  # else inside the work folder's run


def enable_tta(config: Config) -> None:
    """Test with augmentation: the config's ``tta_model`` and ``tta_pipeline``, for a detector flips by default.

    Raises:
        ValueError: A segmentor's config without them.
    """
    if _is_segmentation(config):
        if 'tta_model' not in config or 'tta_pipeline' not in config:
            raise ValueError('--tta needs tta_model and tta_pipeline in the config')
    else:
        config.setdefault(
            'tta_model',
            dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
        )
        if 'tta_pipeline' not in config:
            config.tta_pipeline = deepcopy(innermost(config.test_dataloader.dataset).pipeline)
            meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
            flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
            pack = [dict(type='PackDetInputs', meta_keys=meta)]
            config.tta_pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, pack])
    config.model = ConfigDict(**config.tta_model, module=config.model)
    innermost(config.test_dataloader.dataset).pipeline = config.tta_pipeline


def enable_output(config: Config, out: str) -> None:
    """Keep the predictions: a pickle file for a detector, a folder of label maps for a segmentor.

    Raises:
        ValueError: A detector's file does not end in .pkl or .pickle.
    """
    evaluator = config.test_evaluator
    metrics = list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
    if _is_segmentation(config):
        metrics[0].update(output_dir=out)
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise ValueError(f"--out {out}: a detector's predictions go into a .pkl or .pickle file")
    config.test_evaluator = [*metrics, dict(type='DumpDetResults', out_file_path=out)]


def check_data(config: Config, *splits: str) -> None:
    """Look for the annotations before anything is built.

    Args:
        config: The config.
        splits: Some of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ValueError: A COCO file has no category of a name in ``metainfo.classes``.
        FileNotFoundError: An annotation file is missing, or an image or label folder is missing or holds no file of
            the data set's suffix; the message names the config key and the way out.
    """
    for split in splits:
        key = f'{split}_dataloader.dataset'
        loader = config.get(f'{split}_dataloader')
        for dataset in _datasets(loader.get('dataset') if loader else None):
            root = dataset.get('data_root') or ''
            places = {'ann_file': dataset.get('ann_file') or ''}
            places |= {f'data_prefix.{name}': place for name, place in (dataset.get('data_prefix') or {}).items()}
            for name, place in places.items():
                if not isinstance(place, str) or not place or '://' in root + place:
                    continue
                path = osp.join(root, place)
                suffix = _suffix(dataset, name)
                if not osp.exists(path):
                    fault = 'does not exist'
                elif suffix and next(Path(path).rglob(f'*{suffix}'), None) is None:
                    fault = f'holds no file *{suffix}'
                else:
                    continue
                raise FileNotFoundError(
                    f'{path} {fault} ({key}.{name}). Lay the data out as data/README.md says, then '
                    f'{_way_to_data(config, root)}set {key}.data_root or {key}.{name} in the config'
                )
            _check_categories(dataset, key)


def check_crop(config: Config) -> None:
    """Warn where a segmentor pads its crops: padding costs as much as image and enters BatchNorm's statistics."""
    size = config.model.get('data_preprocessor', {}).get('size')
    loader = config.get('train_dataloader')
    for dataset in _datasets(loader.get('dataset') if loader else None):
        for transform in dataset.get('pipeline') or []:
            crop = transform.get('crop_size')
            crop = (crop, crop) if isinstance(crop, int) else crop
            if transform.get('type') == 'RandomCrop' and size and crop and tuple(crop) != tuple(size):
                print_log(
                    f'Crops of {tuple(crop)} are padded to model.data_preprocessor.size={tuple(size)}: the padding '
                    'costs memory and time and BatchNorm sees it. Set both alike.',
                    logger='current',
                    level=logging.WARNING,
                )


def plan_cuts(config: Config, checkpoint: str | None = None) -> None:
    """Put cuts in place of ``local_blocks='auto'``: those of a checkpoint, or planned ones.

    Args:
        config: Changed in place; without ``'auto'`` left as it is.
        checkpoint: What is resumed or tested; None plans.

    Raises:
        ValueError: The checkpoint's own config holds no plan; see :func:`manpp_mm.profiling.plan.plan_config`.
    """
    if config.model.get('backbone', {}).get('local_blocks') != 'auto':
        return
    if checkpoint is None:
        plan_config(config)
        return
    found = trained_config(read_checkpoint(checkpoint)).get('manpp_plan')
    if found is None:
        raise ValueError(
            f"{checkpoint} was not trained with model.backbone.local_blocks='auto': write the cuts of its own config "
            'into this one'
        )
    apply_cuts(config, found.cuts)
    config.manpp_plan = found


def predict_memory(config: Config) -> str:
    """A line for the log: what a training step of a block-local config is predicted to need.

    '' for another config, and on all ranks but the first.
    """
    rank = os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0'))
    if rank != '0' or not is_local(config.model.get('backbone') or {}):
        return ''
    try:
        return predicted_peak(config)
    except Exception as error:
        # An op without a CPU kernel, a head that wants other targets, images of no fixed size: whatever it is, a line
        # in the log must not stop a training, and says why it is missing.
        return f'The memory of a step cannot be predicted: {type(error).__name__}: {error}'


def checkpoint_to_resume(config: Config) -> str | None:
    """The checkpoint that a resumed training starts from, None if it starts anew."""
    if not config.get('resume'):
        return None
    return config.get('load_from') or find_latest_checkpoint(config.work_dir)


def check_checkpoint_file(path: 'str | None', where: str) -> None:
    """Look for a checkpoint before anything is built.

    Args:
        path: A file, or an address, which is left to MMEngine; None passes.
        where: The flag or config key that names it, for the message.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if path is not None and '://' not in path and not osp.isfile(osp.expanduser(path)):
        raise FileNotFoundError(f'{where}: there is no checkpoint {path}')


def read_checkpoint(path: 'str | Path') -> dict:
    """What a checkpoint holds, on the CPU.

    Raises:
        ValueError: The file is no checkpoint, or holds an object that PyTorch does not load from one.
    """
    try:
        found = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    except (UnpicklingError, RuntimeError, EOFError, LookupError) as error:  # what unpickling any file may raise
        unknown = re.search(r'GLOBAL (\S+)', str(error))
        if unknown:
            raise ValueError(
                f'{path} holds an object of type {unknown[1]}, which PyTorch does not load from a file: save it '
                'without, or allow the type by torch.serialization.add_safe_globals'
            ) from error
        raise ValueError(f'{path} is not a checkpoint that PyTorch can read') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} is not a checkpoint: it holds a {type(found).__name__}')
    return found


def check_fits(model: torch.nn.Module, checkpoint: str) -> None:
    """Does a checkpoint hold every weight of a model but its auxiliary networks'? MMEngine would go on without them.

    Raises:
        ValueError: It does not.
    """
    while hasattr(model, 'module'):  # DDP, test-time augmentation
        model = model.module
    found = read_checkpoint(checkpoint)
    found = {name.removeprefix('module.'): value for name, value in found.get('state_dict', found).items()}
    way_out = 'give the config that it was trained with'
    try:
        missing = model.load_state_dict(found, strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} does not fit the config's model, {way_out}: {error}") from error
    if not found.keys() & model.state_dict().keys():
        raise ValueError(f"{checkpoint} holds no weights of the config's model: is it a backbone's file?")
    if missing:
        raise ValueError(
            f"{checkpoint} does not fit the config's model, {way_out}: it lacks {len(missing)} of the entries "
            f'({", ".join(missing[:3])}{", ..." if len(missing) > 3 else ""})'
        )


def build_runner(config: Config) -> Runner:
    """Build the Runner; several processes without CUDA talk through gloo."""
    if config.launcher == 'pytorch' and not torch.cuda.is_available():
        # MMEngine's own start-up and its default wrapper both ask for a CUDA device.
        if not dist.is_initialized():
            dist.init_process_group('gloo')
            atexit.register(_leave_process_group)
        config.setdefault('model_wrapper_cfg', dict(type='MMDistributedDataParallel'))
        config.model_wrapper_cfg.setdefault('device_ids', None)
    runner = RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
    if 'manpp_plan' in config:
        runner.logger.info('\n'.join(['Planned cuts', *config.manpp_plan.table]))
    return runner


def _leave_process_group() -> None:
    # A thread of gloo's may still wait for the interpreter's lock, to release the last collective's tensor. If it gets
    # it while the interpreter shuts down, the process aborts after its work is done; a sleep hands the lock over.
    time.sleep(0.5)
    if dist.is_initialized():
        dist.destroy_process_group()


def _is_segmentation(config: Config) -> bool:
    return config.get('default_scope') == 'mmseg'


def innermost(dataset: ConfigDict) -> ConfigDict:
    """The data set inside wrappers of one (RepeatDataset)."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def _check_categories(dataset: ConfigDict, key: str) -> None:
    """MMDetection drops classes that an annotation file lacks, without a word."""
    classes = (dataset.get('metainfo') or {}).get('classes')
    if dataset.get('type') != 'CocoDataset' or not classes or not dataset.get('ann_file'):
        return
    path = osp.join(dataset.get('data_root') or '', dataset.ann_file)
    names = [category['name'] for category in load(path)['categories']]
    lacking = [name for name in classes if name not in names]
    if lacking:
        raise ValueError(
            f'{path} has no category {", ".join(map(repr, lacking))} ({key}.metainfo.classes); it has '
            f'{", ".join(map(repr, names[:10]))}{", ..." if len(names) > 10 else ""}'
        )


def _way_to_data(config: Config, root: str | None = None) -> str:
    for key, variable in _ROOTS.items():
        if key in config and root in (None, config[key]):
            return f'set the environment variable {variable} to its folder, or '
    return ''


def _suffix(dataset: ConfigDict, name: str) -> str:
    """How the files of a segmentation data set's folder end, '' where that is not known."""
    if dataset.get('type') not in ('CityscapesDataset', 'BaseSegDataset'):
        return ''
    defaults = dict(img_path='.jpg', seg_map_path='.png')
    if dataset['type'] == 'CityscapesDataset':
        defaults = dict(img_path='_leftImg8bit.png', seg_map_path='_gtFine_labelTrainIds.png')
    keys = {'data_prefix.img_path': 'img_suffix', 'data_prefix.seg_map_path': 'seg_map_suffix'}
    return dataset.get(keys[name], defaults[name.removeprefix('data_prefix.')]) if name in keys else ''


def _datasets(dataset: Any) -> Iterator[ConfigDict]:
    """The data sets inside wrappers (RepeatDataset, ConcatDataset)."""
    if isinstance(dataset, dict) and 'datasets' in dataset:
        for inner in dataset['datasets']:
            yield from _datasets(inner)
    elif isinstance(dataset, dict) and 'dataset' in dataset:
        yield from _datasets(dataset['dataset'])
    elif isinstance(dataset, dict):
        yield dataset
