import pytest
import torch
from mmengine.hooks import Hook
from runners import HOOKS, coco_runner_config, runner

from manpp_mm.hooks import FiniteLossHook


class Break(Hook):
    """Makes one loss of some iterations NaN or infinite."""

    def __init__(self, block: int | None, iterations: range, value: float = float('nan')) -> None:
        self.block, self.iterations, self.value = block, iterations, value

    def before_train(self, runner):
        model = runner.model
        head = model.roi_head if self.block is None else model.backbone.auxiliary[self.block].heads[0]
        self.loss = head.loss

        def loss(*args, **kwargs):
            losses = self.loss(*args, **kwargs)
            broken = runner.iter in self.iterations
            return {k: v * self.value if broken and k == 'loss_cls' else v for k, v in losses.items()}

        head.loss = loss


def config(root, **hook):
    made = coco_runner_config(root)
    made.custom_hooks = [*HOOKS, dict(type='FiniteLossHook', **hook)]
    made.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=1)
    return made


@pytest.mark.parametrize(
    ('block', 'value', 'message'),
    [
        (0, float('nan'), r'block0.loss_cls is nan at iteration 3, the loss of local block 0'),
        (1, float('inf'), r'block1.loss_cls is inf at iteration 3, the loss of local block 1'),
        (None, float('nan'), r'^loss_cls is nan at iteration 3, the loss of the last block and the heads'),
    ],
)
def test_names_block_loss_and_iteration_and_loses_nothing(tmp_path, block, value, message):
    run = runner(config(tmp_path))
    run.register_hook(Break(block, range(2, 3), value))
    with pytest.raises(RuntimeError, match=message):
        run.train()
    saved = list((tmp_path / 'work').glob('*.pth'))
    assert [path.name for path in saved] == ['epoch_1.pth']
    weights = torch.load(saved[0], weights_only=False)['state_dict']
    assert all(torch.isfinite(v).all() for v in weights.values())


def test_broken_weights_are_not_saved_and_cost_no_good_file(tmp_path):
    class BreakWeights(Hook):
        """What another rank's NaN does to this one's weights."""

        priority = 'VERY_HIGH'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter + 1 == 4:
                runner.model.neck.lateral_convs[0].conv.weight.data[0] = float('nan')

    made = config(tmp_path)
    made.default_hooks.checkpoint.max_keep_ckpts = 1
    run = runner(made)
    run.register_hook(BreakWeights())
    with pytest.raises(RuntimeError, match=r'1 weights or buffers are NaN .*iteration 4 \(neck.lateral_convs.0.conv'):
        run.train()
    assert [path.name for path in (tmp_path / 'work').glob('*.pth*')] == ['epoch_1.pth']


def test_a_loss_that_breaks_where_a_checkpoint_is_due(tmp_path):
    run = runner(config(tmp_path))
    run.register_hook(Break(0, range(3, 4)))
    with pytest.raises(RuntimeError, match='block0.loss_cls is nan at iteration 4'):
        run.train()
    assert [path.name for path in (tmp_path / 'work').glob('*.pth*')] == ['epoch_1.pth']


def test_other_losses_that_broke_with_it_are_named(tmp_path):
    run = runner(config(tmp_path))
    run.register_hook(Break(None, range(1, 2)))
    run.register_hook(Break(0, range(1, 2)))
    with pytest.raises(RuntimeError, match=r'block0.loss_cls is nan at iteration 2.*also loss_cls'):
        run.train()


def test_without_the_hook_training_goes_on(tmp_path):
    made = config(tmp_path)
    made.custom_hooks = HOOKS
    run = runner(made)
    run.register_hook(Break(0, range(2, 3)))
    run.train()
    assert run.iter == 4


class Scaler:
    def is_enabled(self):
        return True

    def scale(self, value):
        return value


@pytest.mark.parametrize(('broken', 'stops'), [(range(0, 2), False), (range(0, 3), True), (range(0, 4, 2), False)])
def test_under_a_loss_scaler_only_several_in_a_row_stop(tmp_path, broken, stops):
    run = runner(config(tmp_path, patience=2))
    run.register_hook(Break(0, broken))

    class Scaled(Hook):
        def before_train(self, runner):
            runner.optim_wrapper.loss_scaler = Scaler()
            runner.optim_wrapper.update_params = lambda loss: None  # a scaler skips the step

    run.register_hook(Scaled(), 'LOWEST')
    if stops:
        with pytest.raises(RuntimeError, match=r'iteration 3.*\(3 iterations in a row\)'):
            run.train()
    else:
        run.train()
        assert run.iter == 4  # two in a row, or one now and then, are tolerated


def test_negative_patience():
    with pytest.raises(ValueError, match='FiniteLossHook: patience=-1'):
        FiniteLossHook(patience=-1)
