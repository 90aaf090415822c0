"""Mean IoU over the classes in the ground truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmseg.evaluation import IoUMetric
from torch import Tensor


class PresentClassIoUMetric(IoUMetric):
    """MMSegmentation's ``IoUMetric``, averaged over the classes that occur in the ground truth.

    The stock metric counts a class that never occurs but is predicted somewhere as IoU 0. Here, its row of the table is
    NaN and it is excluded from the means. ``aAcc`` is still over all pixels.

    Args:
        leave_out: Name or names of further classes to exclude from the means, such as a background.
        kwargs: Arguments of ``IoUMetric``. ``nan_to_num`` does not affect excluded classes.

    Raises:
        ValueError: A name in ``leave_out`` is not a class of the data set.

    Example:
        >>> val_evaluator = dict(type='PresentClassIoUMetric', leave_out=['background'])
    """

    plain = IoUMetric
    """The class that replaces it where this package is not installed."""

    def __init__(self, leave_out: 'str | Sequence[str]' = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.leave_out = [leave_out] if isinstance(leave_out, str) else list(leave_out)

    def total_area_to_metrics(
        self, intersect: Tensor, union: Tensor, predicted: Tensor, label: Tensor, *args: Any
    ) -> dict[str, np.ndarray]:
        """Return per-class metrics, arrays of (num_classes,), NaN for excluded classes."""
        classes = self.dataset_meta['classes']
        unknown = set(self.leave_out) - set(classes)
        if unknown:
            raise ValueError(
                f'PresentClassIoUMetric: leave_out={sorted(unknown)} are not classes of the data set '
                f'({", ".join(classes)})'
            )
        metrics = super().total_area_to_metrics(intersect, union, predicted, label, *args)
        without = (label == 0).numpy() | np.array([name in self.leave_out for name in classes])
        return {name: value if name == 'aAcc' else np.where(without, np.nan, value) for name, value in metrics.items()}
