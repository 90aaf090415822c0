"""Mean IoU over the classes that the ground truth holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmseg.evaluation import IoUMetric
from torch import Tensor


class PresentClassIoUMetric(IoUMetric):
    """MMSegmentation's ``IoUMetric``, averaged over the classes that occur in the ground truth.

    The stock metric counts a class that never occurs but is predicted somewhere as IoU 0. Here its row of the table
    is NaN and it does not enter the means. ``aAcc`` is over all pixels, as there.

    Args:
        leave_out: Name or names of classes that do not enter the means either: a background.
        kwargs: ``IoUMetric``'s arguments. ``nan_to_num`` does not reach classes that do not count.

    Raises:
        ValueError: A name of ``leave_out`` is no class of the data set.

    Example:
        >>> val_evaluator = dict(type='PresentClassIoUMetric', leave_out=['background'])
    """

    plain = IoUMetric
    """What stands in for it where this package is not installed."""

    def __init__(self, leave_out: 'str | Sequence[str]' = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.leave_out = [leave_out] if isinstance(leave_out, str) else list(leave_out)

    def total_area_to_metrics(
        self, intersect: Tensor, union: Tensor, predicted: Tensor, label: Tensor, *args: Any
    ) -> dict[str, np.ndarray]:
        """Per-class metrics, arrays of (num_classes,), NaN where a class does not count."""
        classes = self.dataset_meta['classes']
        unknown = set(self.leave_out) - set(classes)
        if unknown:
            raise ValueError(
                f'PresentClassIoUMetric: leave_out={sorted(unknown)} are no classes of the data set '
                f'({", ".join(classes)})'
            )
        metrics = super().total_area_to_metrics(intersect, union, predicted, label, *args)
        without = (label == 0).numpy() | np.array([name in self.leave_out for name in classes])
        return {name: value if name == 'aAcc' else np.where(without, np.nan, value) for name, value in metrics.items()}
