"""Trainings of a real Runner end in the parameters of a training on the naive sum of losses, float64.

Differences stay below 1e-10 of what training moved; where three iterations make a step below 1e-5, for MMDetection
computes some loss terms in float32 even in a float64 model, and the naive sum's third is rounded there.
"""

import copy

import pytest
from mmengine.hooks import Hook
from runners import (
    BatchRecorder,
    assert_same_state,
    coco_runner_config,
    in_double,
    naive_training,
    runner,
    segmentation_runner_config,
)


class StepCounter(Hook):
    """Counts the optimizer's steps and the changes of a momentum branch."""

    def __init__(self) -> None:
        self.steps = self.updates = 0

    def before_train(self, runner):
        branch, _ = runner.model.backbone.momentum_pairs()[0]
        last = [branch.conv2.weight.clone()]

        def count(*_):
            self.steps += 1

        runner.optim_wrapper.optimizer.register_step_pre_hook(count)
        self.branch, self.last = branch, last

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.updates += int((self.branch.conv2.weight != self.last[0]).any())
        self.last[0] = self.branch.conv2.weight.clone()


def check(config, counts: int, **reference):
    """Run a config and its reference, in float64."""
    config.optim_wrapper.update(accumulative_counts=counts)
    plain = copy.deepcopy(config)
    run = runner(config)
    in_double(run.model)
    recorder, counter = BatchRecorder(), StepCounter()
    run.register_hook(counter)
    run.register_hook(recorder, 'LOWEST')
    run.train()
    total = len(recorder.batches)
    assert counter.steps == counter.updates == -(-total // counts)
    plain.model.backbone.pop('with_cp', None)
    batches = [[batch] for batch in recorder.batches]
    expected = naive_training(plain, recorder.start, batches, double=True, accumulative_counts=counts, **reference)
    assert_same_state(run.model.state_dict(), expected, recorder.start, 1e-5 if counts == 3 else 1e-10)
    return run


def detector(root, **backbone):
    """Five iterations of one image an epoch, two epochs."""
    config = coco_runner_config(root, images=5, **backbone)
    config.train_dataloader.batch_size = 1
    return config


@pytest.mark.parametrize('counts', [1, 2, 3])
def test_accumulation_that_divides_neither_epoch_nor_run(tmp_path, counts):
    check(detector(tmp_path), counts)


def multiplier(name: str) -> float:
    return 2.0 if name.startswith('backbone.auxiliary') else 0.1 if name.startswith('backbone') else 1.0


def test_clipping_and_learning_rates_of_their_own(tmp_path):
    config = detector(tmp_path)
    keys = {'backbone': dict(lr_mult=0.1), 'backbone.auxiliary': dict(lr_mult=2.0)}
    config.optim_wrapper.update(clip_grad=dict(max_norm=0.5), paramwise_cfg=dict(custom_keys=keys))
    check(config, 2, max_norm=0.5, lr_mult=multiplier)


def test_frozen_stages(tmp_path):
    run = check(detector(tmp_path, frozen_stages=1), 1)
    assert not any(p.requires_grad for p in run.model.backbone.layer1.parameters())


@pytest.mark.parametrize('norm_eval', [True, False])
def test_checkpointed_units(tmp_path, norm_eval):
    check(detector(tmp_path, with_cp=True, norm_eval=norm_eval), 3)


@pytest.mark.parametrize('lateral', [False, True])
def test_live_batch_norm(tmp_path, lateral):
    check(detector(tmp_path, norm_eval=False, lateral_gradient=lateral), 2)


@pytest.mark.parametrize('with_cp', [False, True])
def test_segmentor(tmp_path, with_cp):
    config = segmentation_runner_config(tmp_path, with_cp=with_cp)
    config.train_cfg.max_iters = 5
    config.optim_wrapper.clip_grad = dict(max_norm=1.0)
    check(config, 2, max_norm=1.0)
