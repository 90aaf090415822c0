"""Real Runners on drawn data, small enough for a test, and a naive reference of a whole training."""

import copy
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from helpers import build, classifier_config, detector_config, exact_loss, naive_loss, segmentor_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

_names = count()
MOMENTUM = 0.9
HOOKS = [dict(type='LocalLearningHook'), dict(type='MomentumHook', momentum=MOMENTUM)]


def write_coco(root: Path, images: int = 4, size: int = 64, empty: tuple[int, ...] = ()) -> None:
    """Write noise images with one box each, 3 classes, as train2017 and val2017; ``empty`` images hold no box."""
    generator = np.random.default_rng(0)
    records, boxes = [], []
    for index in range(images):
        for split in ('train', 'val'):
            (root / f'{split}2017').mkdir(parents=True, exist_ok=True)
            image = generator.integers(0, 255, (size, size, 3), dtype=np.uint8)
            cv2.imwrite(str(root / f'{split}2017' / f'{index}.png'), image)
        records.append(dict(id=index, file_name=f'{index}.png', height=size, width=size))
        if index not in empty:
            box = [4 + index, 6, 40, 36]
            boxes.append(
                dict(id=index + 1, image_id=index, category_id=index % 3 + 1, bbox=box, area=40 * 36, iscrowd=0)
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate('abc')]
    (root / 'annotations').mkdir(exist_ok=True)
    for split in ('train', 'val'):
        path = root / 'annotations' / f'instances_{split}2017.json'
        path.write_text(json.dumps(dict(images=records, annotations=boxes, categories=categories)))


def write_label_maps(root: Path, images: int = 4, size: int = 64) -> None:
    """Write noise images with label maps of 4 classes, for training and validation alike."""
    generator = np.random.default_rng(0)
    for folder in ('images', 'labels'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(images):
        cv2.imwrite(str(root / f'images/{index}.jpg'), generator.integers(0, 255, (size, size, 3), dtype=np.uint8))
        labels = generator.integers(0, 4, (size // 16, size // 16), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        cv2.imwrite(str(root / f'labels/{index}.png'), labels)


def write_mosaics(root: Path, images: int = 4, size: int = 32) -> None:
    """Write noise images of 4 classes as mosaics, two a row, for training and validation alike."""
    generator = np.random.default_rng(0)
    (root / 'mosaics').mkdir(parents=True, exist_ok=True)
    for name in 'abcd':
        mosaic = generator.integers(0, 255, (images // 2 * size, 2 * size, 3), dtype=np.uint8)
        for split in ('train', 'val'):
            cv2.imwrite(str(root / f'mosaics/{split}_{name}.png'), mosaic)


def coco_runner_config(
    root: Path, images: int = 4, empty: tuple[int, ...] = (), validate: bool = False, **backbone: object
) -> Config:
    """The small detector on :func:`write_coco`'s data, two epochs of two iterations of two images."""
    write_coco(root, images, empty=empty)
    config = detector_config(**backbone)
    for split in ('train', 'val'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(root), metainfo=dict(classes=('a', 'b', 'c')))
        if split == 'train':
            loader.dataset.filter_cfg = None
        for transform in loader.dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = (64, 64)
    config.val_evaluator.ann_file = str(root / 'annotations/instances_val2017.json')
    config.train_cfg.update(max_epochs=2)
    return _finished(config, root, validate)


def segmentation_runner_config(root: Path, images: int = 4, validate: bool = False, **backbone: object) -> Config:
    """The small segmentor on :func:`write_label_maps`'s data, four iterations of two images."""
    write_label_maps(root, images)
    config = segmentor_config(**backbone)
    for split in ('train', 'val'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset = dict(
            type='BaseSegDataset',
            data_root=str(root),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            metainfo=dict(classes=tuple('abcd'), palette=[[i, i, i] for i in range(4)]),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
        )
    config.train_cfg.update(max_iters=4, val_interval=2)
    return _finished(config, root, validate)


def classification_runner_config(root: Path, images: int = 4, validate: bool = False, **backbone: object) -> Config:
    """The small classifier on :func:`write_mosaics`'s data, two epochs of two iterations of eight images."""
    write_mosaics(root, images)
    config = classifier_config(**backbone)
    for split in ('train', 'val'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=8, num_workers=0, persistent_workers=False)
        dataset = dict(type='MosaicDataset', data_root=str(root / 'mosaics'), split=split)
        loader.dataset = dataset | dict(pipeline=[dict(type='PackInputs')])
    config.val_evaluator = dict(type='Accuracy', topk=(1,))
    config.train_cfg.update(max_epochs=2)
    return _finished(config, root, validate)


def _finished(config: Config, root: Path, validate: bool) -> Config:
    renamed(config, work_dir=str(root / 'work'), custom_hooks=HOOKS, randomness=dict(seed=0), log_level='WARNING')
    kept = () if validate else ('val_cfg', 'val_dataloader', 'val_evaluator')
    for key in (*kept, 'test_cfg', 'test_dataloader', 'test_evaluator', 'param_scheduler'):
        config[key] = None
    return config


def renamed(config: Config, **keys: object) -> Config:
    """Give a config's Runner a name of its own, for MMEngine's globals leak between Runners, and set keys."""
    name = f'test{next(_names)}'
    config.merge_from_dict(dict(experiment_name=name, visualizer=dict(name=name)) | keys)
    return config


def runner(config: Config) -> Runner:
    """Build a Runner."""
    return Runner.from_cfg(config)


class BatchRecorder(Hook):
    """Keeps the weights that training starts from and each batch, and seeds each iteration."""

    priority = 'LOWEST'

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank
        self.start: dict[str, Tensor] = {}
        self.batches: list = []

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if hasattr(runner.model, 'module') else runner.model
        self.start = copy.deepcopy(model.state_dict())

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: 'dict | None' = None) -> None:
        self.batches.append(copy.deepcopy(data_batch))
        seed_iteration(runner.iter, self.rank)


def seed_iteration(iteration: int, rank: int = 0) -> None:
    """Seed the samplers of one iteration."""
    torch.manual_seed(1000 * rank + iteration)


def in_double(model: nn.Module) -> nn.Module:
    """Let a model, its images and its boxes be float64."""
    model.double()
    preprocess = model.data_preprocessor.forward

    def forward(data: dict, training: bool = False) -> dict:
        data = preprocess(data, training)
        data['inputs'] = data['inputs'].double()
        for sample in data['data_samples']:
            if 'gt_instances' in sample:
                sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
        return data

    model.data_preprocessor.forward = forward
    return model


def naive_training(
    config: Config,
    start: dict[str, Tensor],
    batches: list,
    *,
    double: bool = False,
    accumulative_counts: int = 1,
    max_norm: float | None = None,
    lr_mult: Callable[[str], float] = lambda name: 1.0,
    prepare: Callable[[nn.Module], None] = lambda model: None,
    exact: Callable[[int], bool] = lambda iteration: False,
) -> dict[str, Tensor]:
    """Train on the naive sum of losses with SGD and momentum branches by hand.

    Args:
        config: Model and ``optim_wrapper.optimizer`` are taken from it.
        start: State dict to start from.
        batches: One list of batches (one a rank) an iteration; their gradients are averaged.
        double: Whether in float64.
        accumulative_counts: Iterations a step; the last step averages those that remain.
        max_norm: Clips the norm of all gradients together.
        lr_mult: Learning rate multiplier by parameter name.
        prepare: Called with the model before training.
        exact: Whether an iteration trains end-to-end.

    Returns:
        The final state dict, with the first rank's BatchNorm statistics.
    """
    model = build(config, hooked=False)
    if double:
        in_double(model)
    model.load_state_dict(start)
    prepare(model)
    sgd = {key: value for key, value in config.optim_wrapper.optimizer.items() if key != 'type'}
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    buffers = [{name: b.clone() for name, b in model.named_buffers()} for _ in batches[0]]
    optimizer = torch.optim.SGD([dict(params=[p], lr=sgd['lr'] * lr_mult(name)) for name, p in named], **sgd)
    for iteration, ranks in enumerate(batches):
        first = iteration // accumulative_counts * accumulative_counts
        share = min(accumulative_counts, len(batches) - first) * len(ranks)
        for rank, batch in enumerate(ranks):
            data = model.data_preprocessor(copy.deepcopy(batch), True)
            seed_iteration(iteration, rank)
            keep(model, buffers[rank])
            loss = exact_loss(model, data) if exact(iteration) else naive_loss(model, data)[0]
            (loss / share).backward()
            buffers[rank] = {name: b.clone() for name, b in model.named_buffers()}
        if (iteration + 1) % accumulative_counts == 0 or iteration + 1 == len(batches):
            if max_norm is not None:
                nn.utils.clip_grad_norm_([p for _, p in named], max_norm)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for branch, unit in model.backbone.momentum_pairs():
                    for gamma, theta in zip(branch.parameters(), unit.parameters(), strict=True):
                        gamma.copy_(MOMENTUM * gamma + (1 - MOMENTUM) * theta)
    keep(model, buffers[0])
    return model.state_dict()


def keep(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Put a rank's own BatchNorm statistics into a model."""
    for name, b in model.named_buffers():
        b.copy_(buffers[name])


def assert_same_state(
    found: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor], relative: float
) -> None:
    """Each tensor differs from the expected one by little against how far training moved it, rounding apart."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        moved = torch.linalg.vector_norm((value - start[name]).double())
        difference = torch.linalg.vector_norm((found[name] - value).double())
        eps = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
        # B and M start alike, so that the gradient of s = 1 + delta is a difference of nearly equal numbers.
        size = 1.0 if name.endswith('.delta') else max(torch.linalg.vector_norm(value.double()), 1e-4)
        rounding = 4 * eps * size
        assert difference <= relative * moved + rounding, f'{name}: {difference:.3g} of {moved:.3g}'
