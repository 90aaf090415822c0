"""A transform that looks at a label map before a crop or a GPU can hide what is wrong with it."""

import numpy as np
from mmcv.transforms import BaseTransform


class CheckLabels(BaseTransform):
    """Check a label map's size and values; place it right after ``LoadAnnotations``.

    A label map that is larger than its image would be cropped elsewhere than the image, silently. A label outside the
    class range is a device-side assertion on a GPU, far from its cause.

    Args:
        num_classes: Number of classes; labels are 0 to ``num_classes - 1``.
        ignore_index: The label of pixels that do not count.

    Raises:
        ValueError: On call, for a label map that fails; the message names the file.
    """

    plain = None
    """What stands in for it where this package is not installed: nothing, only training needs it."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Return ``results`` as they are; ``gt_seg_map`` (H, W) has the size of ``img`` (H, W, 3)."""
        if 'gt_seg_map' not in results:  # an inferencer loads no label map
            return results
        labels = results['gt_seg_map']
        path = results['seg_map_path']
        if labels.shape != results['img'].shape[:2]:
            raise ValueError(
                f'{path} is {labels.shape[0]}x{labels.shape[1]} pixels (height x width), its image '
                f'{results["img_path"]} is {results["img"].shape[0]}x{results["img"].shape[1]}'
            )
        wrong = np.unique(labels[(labels >= self.num_classes) & (labels != self.ignore_index)])
        if len(wrong):
            raise ValueError(
                f'{path} holds the labels {wrong[:5].tolist()}, but there are {self.num_classes} classes (0 to '
                f'{self.num_classes - 1}) and {self.ignore_index} for pixels that do not count. Use train ids '
                '(data/README.md), or set num_classes of the decode head, of model.backbone.auxiliary.head and of '
                'CheckLabels'
            )
        return results
