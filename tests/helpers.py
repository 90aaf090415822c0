"""Small real detectors, segmentors and classifiers, and the naive sum of losses that local gradients must equal."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from math import isqrt
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from manpp_mm.auxiliary.padded_fcos_head import PaddedFCOSHead
from manpp_mm.backbones import LocalClassifierViTMixin, LocalViTMixin
from manpp_mm.backbones.unit import STEM
from manpp_mm.compat.config_prefix import config_folder
from manpp_mm.hooks import LocalLearningHook
from manpp_mm.hooks.model_hook import remove_all
from manpp_mm.local.gradient import reduce_losses
from manpp_mm.memory.drawn import draw_classification, draw_segmentation

FCOS = dict(type='PaddedFCOSHead', num_classes=3, feat_channels=32, stacked_convs=1)
AUXILIARY = dict(stride=16, projection=dict(out_channels=16), head=FCOS)


def upstream(name: str) -> Config:
    """A config of an installed package, ``mmdet::...``; MMEngine's ``get_config`` finds not all of the fork's."""
    module, _, path = name.partition('::')
    return Config.fromfile(f'{config_folder(module)}/{path}')


def detector_config(**backbone: object) -> Config:
    """Upstream's Faster R-CNN on a ResNet-18 of 16 base channels, 3 classes, cut after layer2 and layer3."""
    config = upstream('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    model = config.model
    local = dict(type='LocalResNet', cuts=[(1, 1), (2, 1)], auxiliary=AUXILIARY, depth=18, base_channels=16)
    model.backbone.update(local | dict(frozen_stages=-1, init_cfg=None) | backbone)
    model.neck.update(in_channels=[16, 32, 64, 128], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
    model.train_cfg.rcnn.sampler.num = 16
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    return config


SWIN = dict(
    type='LocalSwinTransformer', embed_dims=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4], drop_path_rate=0.3,
    cuts=[(0, 1), (1, 0), (2, 1)], init_cfg=None,
)  # fmt: skip


def with_swin(config: Config, **backbone: object) -> Config:
    """A small model on a Swin Transformer of 16 to 128 channels; windows of 7 do not fit into 64 x 64 pixels."""
    auxiliary = copy.deepcopy(config.model.backbone.auxiliary)
    if config.default_scope == 'mmseg':
        auxiliary['head']['norm_cfg'] = dict(type='BN')
    config.model.backbone = dict(SWIN, auxiliary=auxiliary) | backbone
    return config


def with_backbone(config: Config, channels: Sequence[int], **backbone: object) -> Config:
    """A small model on another backbone, whose maps have so many channels."""
    auxiliary = copy.deepcopy(config.model.backbone.auxiliary)
    if config.default_scope == 'mmseg':
        auxiliary['head']['norm_cfg'] = dict(type='BN')
        config.model.decode_head.update(in_channels=channels[-1], in_index=len(channels) - 1)
    elif config.default_scope == 'mmpretrain':
        config.model.head.in_channels = channels[-1]
        if 'out_type' in backbone or backbone.get('gap_before_final_norm'):  # it gives vectors already
            config.model.neck = None
    else:
        config.model.neck.update(in_channels=list(channels), num_outs=5)
    config.model.backbone = dict(auxiliary=auxiliary, init_cfg=None) | backbone
    return config


def segmentor_config(
    name: str = 'deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py', **backbone: object
) -> Config:
    """An upstream segmentor on a ResNet-18 of 16 base channels, 4 classes, 64x64, cut three times."""
    config = upstream(f'mmseg::{name}')
    model = config.model
    norm = dict(type='BN')
    head = dict(type='FCNHead', num_classes=4, channels=8, num_convs=1)
    local = dict(type='LocalResNetV1c', cuts=[(1, 1), (2, 0), (2, 1)], auxiliary=dict(head=head))
    model.backbone.update(local | dict(depth=18, base_channels=16, stem_channels=16, norm_cfg=norm) | backbone)
    model.update(pretrained=None, auxiliary_head=None)
    channels = [16, 32, 64, 128]
    multiple = isinstance(model.decode_head.in_channels, (list, tuple))
    model.decode_head.update(in_channels=channels if multiple else 128, channels=16, num_classes=4, norm_cfg=norm)
    model.data_preprocessor.size = (64, 64)
    return config


def classifier_config(**backbone: object) -> Config:
    """Upstream's ResNet-18 classifier at 16 base channels, 4 classes, cut after its stem and three times more."""
    config = upstream('mmpretrain::resnet/resnet18_8xb32_in1k.py')
    head = dict(type='StackedLinearClsHead', num_classes=4, mid_channels=[16], norm_cfg=dict(type='BN1d'))
    auxiliary = dict(projection=[dict(out_channels=8, norm_cfg=dict(type='BN'))] * 2, head=head)
    local = dict(type='LocalResNet', cuts=[STEM, (0, 1), (1, 0), (2, 1)], auxiliary=auxiliary)
    config.model.backbone.update(local | dict(base_channels=16, stem_channels=16) | backbone)
    config.model.head.update(num_classes=4, in_channels=128, topk=(1,))
    config.data_preprocessor.num_classes = 4
    config.model.data_preprocessor = copy.deepcopy(config.data_preprocessor)
    return config


DETRS = {
    'detr': 'detr/detr_r50_8xb2-150e_coco.py',
    'deformable_detr': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
}


def detr_config(name: str) -> Config:
    """An upstream DETR on a ResNet-18 of 16 base channels, with one layer each way, 10 queries and 3 classes."""
    config = upstream(f'mmdet::{DETRS[name]}')
    model = config.model
    local = dict(type='LocalResNet', cuts=[(1, 1), (2, 1)], auxiliary=AUXILIARY, depth=18, base_channels=16)
    model.backbone.update(local | dict(frozen_stages=-1, init_cfg=None))
    model.neck.in_channels = [16 * 2**stage for stage in model.backbone.out_indices]
    model.num_queries = 10
    model.bbox_head.num_classes = 3
    for part in (model.encoder, model.decoder):
        part.num_layers = 1
        part.layer_cfg.ffn_cfg.feedforward_channels = 32
    return config


def mask2former_config() -> Config:
    """MMSegmentation's Mask2Former on a ResNet-18 of 16 base channels, with two layers each way and 4 classes."""
    config = upstream('mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py')
    model, head = config.model, config.model.decode_head
    auxiliary = dict(head=dict(type='FCNHead', num_classes=4, channels=8, num_convs=1, norm_cfg=dict(type='BN')))
    local = dict(type='LocalResNet', cuts=[(1, 1), (2, 1)], auxiliary=auxiliary, depth=18, base_channels=16)
    model.backbone.update(local | dict(norm_cfg=dict(type='BN'), init_cfg=None))
    model.data_preprocessor.size = (64, 64)
    head.update(in_channels=[16, 32, 64, 128], num_classes=4, num_queries=10)
    head.loss_cls.class_weight = [1.0] * 4 + [0.1]
    head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 2
    head.num_transformer_feat_level = 3
    return config


def build(config: Config, *, hooked: bool = True) -> nn.Module:
    """Build the model of a config in training mode with synced branches, and the forward hooks if asked for."""
    MMLogger.get_instance('mmengine', log_level='WARNING').setLevel('WARNING')
    init_default_scope(config.default_scope)
    model = MODELS.build(ConfigDict(config.model))
    model.init_weights()
    model.train()
    if hooked:
        LocalLearningHook().apply(model)
    return model


def detection_batch(model: nn.Module, batch: int = 2, size: int = 64, items: list[int] | None = None) -> dict:
    """A preprocessed batch of random images and boxes of 3 classes in the model's floating-point type."""
    data = demo_mm_inputs(batch, (3, size, size), num_items=items or [3] * batch, num_classes=3, use_box_type=True)
    data = model.data_preprocessor(data, True)
    dtype = next(model.parameters()).dtype
    data['inputs'] = data['inputs'].to(dtype)
    for sample in data['data_samples']:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
    return data


def segmentation_batch(model: nn.Module, batch: int = 2, size: int = 64) -> dict:
    """A preprocessed batch of random images and label maps in the model's floating-point type."""
    data = model.data_preprocessor(draw_segmentation(model.num_classes, batch, (size, size), seed=0), True)
    data['inputs'] = data['inputs'].to(next(model.parameters()).dtype)
    return data


def classification_batch(model: nn.Module, batch: int = 4, size: int = 64) -> dict:
    """A preprocessed batch of random images and labels in the model's floating-point type."""
    data = model.data_preprocessor(draw_classification(model.head.num_classes, batch, (size, size)), True)
    data['inputs'] = data['inputs'].to(next(model.parameters()).dtype)
    return data


def drawn_for(model: nn.Module, scope: str) -> dict:
    """A preprocessed batch for a small model of a package."""
    batches = dict(mmdet=detection_batch, mmseg=segmentation_batch, mmpretrain=classification_batch)
    return batches[scope](model)


def padded_head(**kwargs: object) -> nn.Module:
    """A small ``PaddedFCOSHead`` of 5 classes on levels of strides 8, 16 and 32."""
    init_default_scope('mmdet')  # its losses' registry
    ranges = ((-1, 64), (64, 128), (128, 1e8))
    common = dict(num_classes=5, in_channels=16, feat_channels=32, stacked_convs=1)
    return PaddedFCOSHead(**common | dict(strides=[8, 16, 32], regress_ranges=ranges) | kwargs)


def detection_samples(counts: list[int], size: int = 256, dtype: torch.dtype = torch.float32) -> list[DetDataSample]:
    """Data samples with so many random boxes of 5 classes each."""
    samples = []
    for count in counts:
        corner, sides = torch.rand(count, 2, dtype=dtype) * size * 0.8, torch.rand(count, 2, dtype=dtype) * size / 2
        boxes = torch.cat([corner, (corner + sides + 4).clamp(max=size)], 1)
        sample = DetDataSample(metainfo=dict(img_shape=(size, size)))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(0, 5, (count,)))
        samples.append(sample)
    return samples


def naive_loss(model: nn.Module, data: dict) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the model's loss and all local losses over blocks joined by ``detach()``, as one ordinary graph.

    The parent backbone's own forward runs; forward hooks cut it.

    Returns:
        The sum, and the local losses under their logged names.
    """
    backbone, local = model.backbone, {}
    for network in backbone.auxiliary:
        if network.reconstruction is not None:
            network.reconstruction.set_statistics(model.data_preprocessor.mean, model.data_preprocessor.std)
    handles = []
    for block, cut in enumerate(backbone.cuts):
        module, to_x = cut_point(backbone, cut)
        handles.append(module.register_forward_hook(_cut(to_x, backbone.auxiliary[block], block, data, local)))
    ends = {unit.output: unit.cut for unit in backbone.units() if unit.output is not None}
    before_last = [stage for stage, cut in ends.items() if backbone.cuts and cut <= tuple(backbone.cuts[-1])]
    again: dict[int, Callable[[], Tensor]] = {}
    if backbone.lateral_gradient:
        for stage in before_last:
            module = cut_point(backbone, ends[stage])[0]
            handles.append(module.register_forward_pre_hook(_again(again, stage)))
            handles.append(_Untaught(module))

    def detached(stage: int, out: Tensor) -> Tensor:
        return again[stage]() if backbone.lateral_gradient else out.detach()

    norms = {module: stage for stage in before_last for module in backbone.output_modules(stage)}
    for norm in norms:  # the norm of an output learns by the task, what is before it does not
        handles.append(norm.register_forward_pre_hook(lambda norm, args: (detached(norms[norm], args[0]),)))

    def forward(x: Tensor) -> tuple[Tensor, ...]:
        outs = type(backbone).plain.forward(backbone, x)
        if norms:
            return tuple(outs)
        pairs = zip(sorted(backbone.out_indices), outs, strict=True)
        return tuple(detached(stage, out) if stage in before_last else out for stage, out in pairs)

    backbone.forward = forward
    try:
        total, _ = model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    finally:
        del backbone.forward
        for handle in handles:
            handle.remove()
    return total + sum(value for name, value in local.items() if 'loss' in name), local


class _Untaught:
    """Hides a module's parameters from the gradients that pass through its calls, until it is removed."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        module.forward = self

    def __call__(self, *args: Any) -> Any:
        owners = [(m, name, p) for m in self.module.modules() for name, p in m._parameters.items() if p is not None]
        for owner, name, parameter in owners:
            owner._parameters[name] = parameter.detach()
        try:
            return type(self.module).forward(self.module, *args)
        finally:
            for owner, name, parameter in owners:
                owner._parameters[name] = parameter

    def remove(self) -> None:
        del self.module.forward


def _again(again: dict[int, Callable[[], Tensor]], stage: int) -> Callable:
    """A forward pre-hook that keeps how to run its module once more, on a detached input and with its buffers kept."""

    def hook(module: nn.Module, args: tuple) -> None:
        def run() -> Tensor:
            del again[stage]  # without it, this run would be kept too
            buffers = {name: b.clone() for name, b in module.named_buffers()}
            out = type(module).forward(module, args[0].detach(), *args[1:])
            for name, b in module.named_buffers():
                b.data.copy_(buffers[name])  # unseen by autograd, which may have saved it
            return out[0] if isinstance(out, tuple) else out

        again.setdefault(stage, run)

    return hook


def cut_point(backbone: nn.Module, cut: tuple[int, int]) -> tuple[nn.Module, Callable]:
    """The plain backbone's module whose output ends unit ``(stage, index)``, and what makes the trunk's x of it."""
    stage, index = cut
    if isinstance(backbone, (LocalViTMixin, LocalClassifierViTMixin)):
        pack = backbone.layout.pack
        side = lambda tokens: isqrt(tokens.shape[1])  # noqa: E731  of square images, the class token rounded off
        module = backbone.pre_norm if tuple(cut) == STEM else backbone.layers[index]
        return module, lambda tokens, _: pack(tokens, (side(tokens), side(tokens)))
    if tuple(cut) == STEM:
        return _stem_end(backbone)
    if hasattr(backbone, 'patch_embed'):  # a Swin block is told the size of its tokens (N, H * W, C)
        return backbone.stages[stage].blocks[index], _with_size
    if isinstance(getattr(backbone, 'layers', None), nn.ModuleList):  # PVT: patch embedding, layers, norm
        _, layers, norm = backbone.layers[stage]
        layers = [layer for layer in layers if not hasattr(layer, 'pos_embed')]
        if index == len(layers) - 1:
            return norm, lambda tokens, _: tokens.unflatten(1, (isqrt(tokens.shape[1]),) * 2)
        return layers[index], _with_size
    if hasattr(backbone, 'downsample_layers'):
        return backbone.stages[stage][index], lambda x, _: x
    name = 'stage' if hasattr(backbone, 'stage1') else 'layer'
    return getattr(backbone, f'{name}{stage + 1}')[index], lambda x, _: x


def _stem_end(backbone: nn.Module) -> tuple[nn.Module, Callable]:
    if hasattr(backbone, 'patch_embed'):
        return backbone.drop_after_pos, lambda tokens, _: tokens.unflatten(1, (isqrt(tokens.shape[1]),) * 2)
    if hasattr(backbone, 'downsample_layers'):
        return backbone.downsample_layers[0], lambda x, _: x
    pools = hasattr(backbone, 'maxpool')
    return backbone.maxpool if pools else getattr(backbone, 'relu', getattr(backbone, 'stem', None)), lambda x, _: x


def _with_size(tokens: Tensor, args: tuple) -> Tensor:
    return tokens.unflatten(1, args[1])


def _cut(to_x: Callable, network: nn.Module, block: int, data: dict, local: dict) -> Callable:
    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        losses = reduce_losses(network(to_x(output, args), data['data_samples'], data['inputs']))
        local.update({f'block{block}.{name}': value for name, value in losses.items()})
        return output.detach()

    return hook


def exact_loss(model: nn.Module, data: dict) -> Tensor:
    """The model's loss with the parent backbone's own forward: end-to-end training, block by block nothing."""
    backbone = model.backbone
    backbone.forward = partial(type(backbone).plain.forward, backbone)
    try:
        return model.parse_losses(model.loss(data['inputs'], data['data_samples']))[0]
    finally:
        del backbone.forward


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """The gradient of every parameter by name."""
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def assert_same_gradients(found: dict[str, Tensor | None], expected: dict[str, Tensor | None], relative: float) -> None:
    """Same parameters without a gradient, and for the others a difference small against the gradient's norm.

    What a normalisation takes away again has a gradient of rounding alone, below 1e-15.
    """
    assert {n for n, g in found.items() if g is None} == {n for n, g in expected.items() if g is None}
    for name, gradient in expected.items():
        if gradient is not None:
            difference = torch.linalg.vector_norm(found[name] - gradient)
            assert difference <= relative * torch.linalg.vector_norm(gradient) + 1e-15, name


def check_parity(model: nn.Module, data: dict) -> set[str]:
    """One step of the model against the naive sum: loss, log, gradients (relative 1e-10) and buffers.

    Returns:
        The names under which local losses were logged.
    """
    return set(_check_step(model, data, naive_loss))


def check_exact(model: nn.Module, data: dict) -> None:
    """A step of a model with ``gradient='exact'`` against its parent's own forward: loss, gradients and buffers."""
    _check_step(model, data, lambda model, data: (exact_loss(model, data), {}))


def _check_step(model: nn.Module, data: dict, reference: Callable) -> dict[str, Tensor]:
    """One step of the model against a reference's loss and the terms of it that the log has to hold."""
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    torch.manual_seed(1)
    loss, log = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    found, moved = gradients(model), {name: b.clone() for name, b in model.named_buffers()}

    model.zero_grad()
    for name, b in model.named_buffers():
        b.copy_(buffers[name])
    remove_all(model)
    torch.manual_seed(1)
    expected, terms = reference(model, data)
    expected.backward()

    assert_same_gradients(found, gradients(model), 1e-10)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for name, value in terms.items():
        torch.testing.assert_close(log[name], value, rtol=1e-12, atol=0, check_dtype=False)
    for name, b in model.named_buffers():
        assert torch.equal(b, moved[name]), name
    return terms


def check_evaluation(local: nn.Module, plain: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local backbone in evaluation and without gradients: its parent's bits, and no auxiliary network runs."""
    local.init_weights()
    missing, unexpected = plain.load_state_dict(local.state_dict(), strict=False)
    assert not missing
    assert {name.split('.')[0] for name in unexpected} == {'auxiliary'}
    monkeypatch.setattr(type(local.auxiliary[0]), 'forward', lambda *_: pytest.fail('an auxiliary network ran'))
    x = torch.rand(2, 3, 64, 64)
    local.eval()
    plain.eval()
    for found, expected in zip(local(x), plain(x), strict=True):
        assert torch.equal(found, expected)
    local.train()
    plain.train()
    with torch.no_grad():
        found, expected = ((torch.manual_seed(0), module(x))[1] for module in (local, plain))  # drop path
        for own, parents in zip(found, expected, strict=True):
            assert torch.equal(own, parents)
