"""Gradients clipped block by block, and random numbers seeded block by block."""

import pytest
import torch
from helpers import build, detection_batch, detector_config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from manpp_mm.hooks import BlockClipHook, LocalLearningHook


def stepped(max_norm: float) -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A model after one step of SGD with learning rate 1, its gradients without clipping, and how far it moved."""
    torch.manual_seed(0)
    model = build(detector_config(), hooked=False).train()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0))
    LocalLearningHook().apply(model, wrapper)
    BlockClipHook(max_norm).apply(model, wrapper)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    data = detection_batch(model)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in named.items()}
    before = {name: p.detach().clone() for name, p in named.items()}
    wrapper.step()
    return model, gradients, {name: before[name] - p.detach() for name, p in named.items()}


def test_each_block_has_a_norm_of_its_own():
    max_norm = 7.5
    model, gradients, moved = stepped(max_norm)
    blocks = model.backbone.blocks()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [[names[id(p)] for p in block.local_parameters if p.requires_grad] for block in blocks[:-1]]
    groups.append([name for name in gradients if not any(name in group for group in groups)])
    assert any(name.startswith('rpn_head') for name in groups[-1]) and any('layer4' in name for name in groups[-1])
    norms = [torch.stack([gradients[name].norm() for name in group]).norm() for group in groups]
    assert len(norms) == 3
    assert min(norms) < max_norm < max(norms)  # a group that is clipped, and one that is not
    for group, norm in zip(groups, norms, strict=True):
        factor = min(1.0, max_norm / float(norm))
        for name in group:
            torch.testing.assert_close(moved[name], gradients[name] * factor, rtol=2e-3, atol=1e-5)
    logged = MessageHub.get_current_instance().log_scalars
    keys = ('train/block0.grad_norm', 'train/block1.grad_norm', 'train/grad_norm')
    assert [logged[key].current() for key in keys] == pytest.approx([float(norm) for norm in norms], rel=1e-5)


def test_what_it_refuses():
    with pytest.raises(ValueError, match='max_norm=0 must be a positive number'):
        BlockClipHook(max_norm=0)
    model = build(detector_config(), hooked=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match='gradients are clipped twice'):
        BlockClipHook(max_norm=1).apply(model, OptimWrapper(optimizer, clip_grad=dict(max_norm=1)))


class At:
    """A stand-in for a runner at an iteration."""

    seed = 5

    def __init__(self, iteration: int) -> None:
        self.iter = iteration


def losses(model, data, seeded: bool, iteration: int, before: int) -> 'tuple[dict, torch.Tensor]':
    hook = LocalLearningHook(seed_blocks=seeded)
    hook.apply(model)
    hook.before_train_iter(At(iteration), 0)
    torch.manual_seed(before)
    found = model(**data, mode='loss')
    after = torch.rand(3)
    hook.remove(model)
    return {name: float(value) for name, value in model.parse_losses(found)[1].items()}, after


def test_seeded_blocks_draw_what_the_iteration_says():
    torch.manual_seed(0)
    model = build(detector_config(norm_eval=True), hooked=False).train()
    model.rpn_head.sampler.num = 4  # so few that they are drawn
    data = detection_batch(model)
    free = [losses(model, data, False, 7, before)[0] for before in (1, 2)]
    assert free[0]['loss_rpn_cls'] != free[1]['loss_rpn_cls']
    (one, after), (two, _), (next_, _) = (
        losses(model, data, True, i, before) for i, before in ((7, 1), (7, 2), (8, 1))
    )
    assert one == two
    assert one['loss_rpn_cls'] != next_['loss_rpn_cls']
    # The loader's numbers go on as if the model had drawn none.
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))
