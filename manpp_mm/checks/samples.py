"""Paints training images with their annotations, as the model will see them."""

from pathlib import Path

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from mmengine.visualization import Visualizer

from .images import sample


def paint_samples(config: Config, out_dir: 'str | Path', number: int = 4) -> list[Path]:
    """Paint training images after the training pipeline.

    Args:
        config: The config.
        out_dir: Folder for ``0.jpg``, ``1.jpg``, ...
        number: The number of images, spread over the data set.

    Returns:
        The files written.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    dataset = DATASETS.build(config.train_dataloader.dataset)
    options = dict(config.get('visualizer') or dict(type='Visualizer'))
    visualizer: Visualizer = VISUALIZERS.build(options | dict(name='check_data', vis_backends=None))
    visualizer.dataset_meta = dataset.metainfo
    painted = []
    for position, index in enumerate(sample(range(len(dataset)), number)):
        item = dataset[index]
        image = np.ascontiguousarray(item['inputs'].permute(1, 2, 0).numpy()[..., ::-1])  # RGB, as visualizers paint
        path = Path(out_dir) / f'{position}.jpg'
        boxes = getattr(item['data_samples'], 'gt_instances', {}).get('bboxes')
        if boxes is not None and hasattr(boxes, 'tensor'):
            item['data_samples'].gt_instances.bboxes = boxes.tensor  # the visualizer does not support box types
        if hasattr(visualizer, 'visualize_cls'):
            visualizer.visualize_cls(image, item['data_samples'], classes=dataset.metainfo.get('classes'))
            mmcv.imwrite(visualizer.get_image()[..., ::-1], str(path))
        else:
            visualizer.add_datasample(path.stem, image, item['data_samples'], draw_pred=False, out_file=str(path))
        painted.append(path)
    return painted
