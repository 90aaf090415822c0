"""A transform that checks label maps before a crop or a GPU can hide what is wrong."""

import numpy as np
from mmcv.transforms import BaseTransform

from ..checks.labels import check_shape


class CheckLabels(BaseTransform):
    """Checks a label map's size and values; place it right after ``LoadAnnotations``, in training and validation.

    A label map that is larger than its image would silently be cropped in another place. A label outside the class
    range causes a device-side assertion on a GPU, far from its origin.

    Args:
        num_classes: Number of classes; labels are 0 to ``num_classes - 1``.
        ignore_index: The label of ignored pixels.

    Raises:
        ValueError: On call, if a label map fails the check; the message names the file.
    """

    plain = None
    """Nothing replaces it where this package is not installed, because only training needs it."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Return ``results`` unchanged; ``gt_seg_map`` (H, W) must have the size of the loaded image."""
        if 'gt_seg_map' not in results:  # an inferencer loads no label map
            return results
        labels = results['gt_seg_map']
        path = results['seg_map_path']
        check_shape(path, labels, results['img_path'], results['ori_shape'])  # test pipelines resize only the image
        wrong = np.unique(labels[(labels >= self.num_classes) & (labels != self.ignore_index)])
        if len(wrong):
            raise ValueError(
                f'{path} holds the labels {wrong[:5].tolist()}, but there are {self.num_classes} classes (0 to '
                f'{self.num_classes - 1}) and {self.ignore_index} for ignored pixels. Use train ids '
                '(data/README.md), or set num_classes of the decode head, of model.backbone.auxiliary.head and of '
                'CheckLabels'
            )
        return results
