"""Modes, sweeps and reports of the benchmark."""

import json
import sys

import pytest
import torch
from helpers import detector_config, segmentor_config, upstream
from processes import execute

from manpp_mm.hooks.replaced_method import ReplacedMethod
from manpp_mm.memory import MODES, Measurement, TrainingStep, measure, plot_modes, plot_sweep, table, variants

SIZE = (64, 64)


@pytest.mark.parametrize('mode', [str(mode) for mode in MODES if not mode.offloaded])
@pytest.mark.parametrize('make', [detector_config, segmentor_config])
def test_every_mode_takes_a_step(make, mode):
    if mode.endswith('_early_loss') and make is segmentor_config:
        with pytest.raises(ValueError, match=f'mode {mode}: EncoderDecoder has no head that supports an early loss'):
            TrainingStep(make(), mode, 2, SIZE)
        return
    step = TrainingStep(make(), mode, 2, SIZE)
    assert step.peak_bytes() > 0
    backbone = step.model.backbone
    assert hasattr(backbone, 'cuts') == mode.startswith(('local', 'exact'))
    trains = any(p.requires_grad for p in backbone.parameters())
    assert trains != mode.startswith('frozen')


def test_local_runs_with_the_configs_own_hooks_and_end_to_end_without():
    config = detector_config()
    config.custom_hooks = [
        dict(type='CheckpointModulesHook', modules=['neck']),
        dict(type='EarlyLossHook', heads=['rpn_head']),
    ]

    def replaced(mode: str) -> set[str]:
        modules = TrainingStep(config, mode, 2, SIZE).model.named_modules()
        return {name for name, m in modules if any(isinstance(v, ReplacedMethod) for v in vars(m).values())}

    assert replaced('local') == replaced('exact') == {'neck', 'rpn_head'}
    assert replaced('end_to_end') == set()
    assert replaced('end_to_end_early_loss') == {'rpn_head'}
    assert replaced('end_to_end_heads_checkpointed') == {'neck', 'rpn_head'}


def test_a_cascades_heads_are_checkpointed_one_by_one():
    config = detector_config()
    cascade = upstream('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py').model
    roi_head = cascade.roi_head
    roi_head.bbox_roi_extractor.out_channels = roi_head.mask_roi_extractor.out_channels = 16
    for head in roi_head.bbox_head:
        head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=3, num_convs=1)
    config.model.update(type='CascadeRCNN', roi_head=roi_head, train_cfg=cascade.train_cfg)
    step = TrainingStep(config, 'end_to_end_heads_checkpointed', 2, SIZE)
    step.run()  # refuses a module that was checkpointed and did not run
    assert isinstance(step.model.roi_head.mask_head[2].forward, ReplacedMethod)
    assert isinstance(step.model.rpn_head.loss_and_predict, ReplacedMethod)


@pytest.mark.parametrize(
    ('mode', 'amp', 'message'),
    [
        ('end_to_end_offloaded', None, 'mode end_to_end_offloaded needs a GPU'),
        ('local', torch.float16, 'mixed precision .* needs a GPU'),
        ('fast', None, "unknown mode 'fast', choose from end_to_end"),
    ],
)
def test_what_cannot_be_measured(mode, amp, message):
    with pytest.raises(ValueError, match=message):
        TrainingStep(segmentor_config(), mode, 2, SIZE, amp=amp)


def test_sweeps():
    found = list(variants(detector_config(), 2, SIZE, depths=[18, 34], batches=[1, 2]))
    assert [name for name, *_ in found] == ['R18, batch 1', 'R18, batch 2', 'R34, batch 1', 'R34, batch 2']
    assert [(c.model.backbone.depth, c.model.backbone.local_blocks, b) for _, c, b in found] == [
        (18, 3, 1), (18, 3, 2), (34, 3, 1), (34, 3, 2)
    ]  # fmt: skip
    (_, config, _), (_, planned, _) = variants(segmentor_config(), 2, SIZE, blocks=[2, 'auto'])
    assert (config.model.backbone.local_blocks, config.model.backbone.cuts) == (2, None)
    assert planned.model.backbone.local_blocks is None
    assert planned.model.backbone.cuts is not None
    with pytest.raises(ValueError, match='--depths 50: neck and heads .* fit only the widths of depths 18, 34'):
        list(variants(detector_config(), 2, SIZE, depths=[50]))


def test_reports(tmp_path):
    calls = []
    found = measure(segmentor_config(), ['end_to_end', 'local'], 2, SIZE, repeats=2, progress=lambda: calls.append(1))
    assert len(calls) == 2 * 3
    lines = table(found).splitlines()
    assert lines[1].split()[:3] == ['end_to_end', f'{found["end_to_end"].peak_bytes / 1e6:.0f}', '1.000']
    plot_modes(found, 'title', tmp_path / 'modes.png')
    plot_sweep([('R18', found), ('R34', found)], 'title', tmp_path / 'sweep.png')
    for name in ('modes', 'sweep'):
        assert (tmp_path / f'{name}.png').read_bytes()[:4] == b'\x89PNG'
    assert Measurement(1, 2, 3, 4, float('nan'), float('nan')).as_dict() == dict(
        peak_bytes=1,
        operators=2,
        synchronisations=3,
        flops=4,
        step_seconds=None,
        step_seconds_spread=None,
        allocated_bytes=None,
        device_seconds=None,
    )


@pytest.mark.slow
def test_the_tools(tmp_path):
    config = 'configs/deeplabv3_r18_manpp_cityscapes.py'
    done = execute(
        sys.executable, 'tools/benchmark.py', config, '--input', 2, 64, 128, '--repeats', 1, '--modes', 'end_to_end',
        'local', '--peak', 3, '--json', tmp_path / 'a.json', '--plot', tmp_path / 'a.png',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'alive at the peak of local' in done.stdout
    figures = json.loads((tmp_path / 'a.json').read_text())
    assert (figures['config'], figures['input']) == (config, [2, 64, 128])
    assert set(figures['modes']) == {'end_to_end', 'local'}
    assert figures['modes']['local']['step_seconds'] > 0
    assert (tmp_path / 'a.png').exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize('flags', [['--amp', 'float16'], ['--modes', 'end_to_end_offloaded']])
def test_flags_that_need_a_gpu(flags):
    done = execute(sys.executable, 'tools/benchmark.py', 'configs/fcos_r50_manpp_coco.py', *flags)
    assert done.returncode == 2
    assert '--amp and end_to_end_offloaded need a GPU' in done.stderr
