import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric

from manpp_mm.evaluation.iou import PresentClassIoUMetric

CLASSES = ('background', 'a', 'b', 'absent')
LABEL = torch.tensor([[0, 0, 1, 1], [2, 2, 1, 255]])
PREDICTED = torch.tensor([[0, 3, 1, 2], [2, 2, 1, 0]])
# background: 1 of 2; a: 2 of 3; b: 2 of 3; absent: predicted once, 0 of 1


def evaluate(metric) -> dict:
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [dict(pred_sem_seg=dict(data=PREDICTED[None]), gt_sem_seg=dict(data=LABEL[None]))])
    return metric.evaluate(1)


def test_by_hand():
    found = evaluate(PresentClassIoUMetric())
    assert found['mIoU'] == pytest.approx(100 * np.mean([1 / 2, 2 / 3, 2 / 3]), abs=0.01)
    assert found['aAcc'] == pytest.approx(100 * 5 / 7, abs=0.01)
    # The stock metric counts the absent class as 0.
    assert evaluate(IoUMetric())['mIoU'] == pytest.approx(100 * np.mean([1 / 2, 2 / 3, 2 / 3, 0]), abs=0.01)


def test_a_class_left_out():
    found = evaluate(PresentClassIoUMetric(leave_out=['background']))
    assert found['mIoU'] == pytest.approx(100 * 2 / 3, abs=0.01)
    assert found['mAcc'] == pytest.approx(100 * np.mean([2 / 3, 1]), abs=0.01)


def test_other_means_and_nan_to_num():
    found = evaluate(PresentClassIoUMetric(iou_metrics=['mDice', 'mFscore'], nan_to_num=0))
    assert found['mDice'] == pytest.approx(100 * np.mean([2 / 3, 4 / 5, 4 / 5]), abs=0.01)


def test_unknown_class():
    with pytest.raises(ValueError, match=r"leave_out=\['sky'\] are not classes"):
        evaluate(PresentClassIoUMetric(leave_out=['sky']))
