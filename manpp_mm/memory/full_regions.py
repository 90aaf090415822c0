"""A two-stage detector's head with the maximum number of regions."""

from typing import Any

import torch
from mmengine.model import BaseModel
from torch import nn

_POSITIVE = ('pos_inds', 'pos_priors', 'pos_is_gt', 'pos_assigned_gt_inds', 'pos_gt_labels', 'pos_gt_bboxes')
_NEGATIVE = ('neg_inds', 'neg_priors')


def fill_regions(model: BaseModel) -> None:
    """Make the samplers of a model's RoI head return their full number of positive and negative regions.

    An untrained RPN finds few positives on random targets, and a mask head processes only positives. A trained RPN
    finds more than the sampler takes. The missing regions are filled with copies of the existing ones.
    """
    samplers = getattr(getattr(model, 'roi_head', None), 'bbox_sampler', None)
    for sampler in samplers if isinstance(samplers, (list, nn.ModuleList)) else [samplers]:
        if sampler is not None and hasattr(sampler, 'num') and hasattr(sampler, 'pos_fraction'):
            sampler.sample = _FullSample(sampler)


class _FullSample:
    """Replaces a sampler's ``sample``."""

    def __init__(self, sampler: Any) -> None:
        self.original = sampler.sample
        self.positive = int(sampler.num * sampler.pos_fraction)
        self.negative = sampler.num - self.positive

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = self.original(*args, **kwargs)
        for names, number in ((_POSITIVE, self.positive), (_NEGATIVE, self.negative)):
            there = len(getattr(found, names[0]))
            if there and there < number:
                repeated = torch.arange(number, device=getattr(found, names[0]).device) % there
                for name in names:
                    setattr(found, name, getattr(found, name)[repeated])
        found.num_pos, found.num_neg = max(len(found.pos_inds), 1), max(len(found.neg_inds), 1)
        found.avg_factor = found.num_pos + (found.num_neg if found.avg_factor_with_neg else 0)
        return found
