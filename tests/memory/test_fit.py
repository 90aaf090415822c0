"""Any config fits a budget: what is chosen, that it holds, and what is refused."""

import copy
import re

import pytest
import torch
from helpers import build, classifier_config, detector_config, segmentor_config, upstream, with_swin
from mmengine.config import Config, ConfigDict
from mmengine.optim import AmpOptimWrapper
from runners import coco_runner_config, renamed, runner, segmentation_runner_config

import manpp_mm
from manpp_mm.backbones import mode_of
from manpp_mm.cli import runner as running
from manpp_mm.commands import fit as command
from manpp_mm.memory import TrainingStep, fit
from manpp_mm.memory import budget as budgets
from manpp_mm.memory.budget import RESERVE, budget_bytes, parse_size
from manpp_mm.memory.footprint import footprint, padded
from manpp_mm.memory.inputs import fixed_bytes, in_mixed_precision
from manpp_mm.memory.predict import Prediction, Predictor, methods_for
from manpp_mm.memory.report import at_least, ways_table
from manpp_mm.methods import Way, method_of

SIZE = (320, 640)
INPUT = (2, *SIZE)


def plain(config: Config) -> Config:
    """A config without anything of ours: as upstream's."""
    config.model.backbone = ConfigDict(
        {k: v for k, v in config.model.backbone.items() if k not in ('cuts', 'auxiliary', 'local_blocks')}
    )
    config.model.backbone.type = config.model.backbone.type.removeprefix('Local')
    config.custom_hooks = None
    return config


def plain_detector(**backbone: object) -> Config:
    return plain(detector_config(frozen_stages=-1, **backbone))


def measured(config: Config, batch: int = 2, *size: int) -> int:
    """Bytes of everything that a real step of a config needs."""
    size, fixed = padded(config, size or SIZE), fixed_bytes(config)
    step = TrainingStep(config, mode_of(config), batch, size, full_regions=True)
    return fixed.before(batch, size) + max(step.peak_bytes(), fixed.stepping)


@pytest.fixture(scope='module')
def detector_ways():
    predictor = Predictor(plain_detector(), 2, SIZE)
    return predictor, predictor.predictions(methods_for(predictor.config, None, every=True))


def test_ways_of_a_detector(detector_ways):
    predictor, found = detector_ways
    names = [str(each.way) for each in found]
    assert names == [
        'end_to_end', 'end_to_end_early_loss', 'exact_early_loss', 'manpp_early_loss',
        'end_to_end_checkpointed_early_loss', 'exact_checkpointed_early_loss', 'manpp_checkpointed_early_loss',
        'end_to_end_heads_checkpointed', 'exact_heads_checkpointed', 'manpp_heads_checkpointed',
        'end_to_end_checkpointed_heads_checkpointed', 'exact_checkpointed_heads_checkpointed',
        'manpp_checkpointed_heads_checkpointed',
    ]  # fmt: skip
    assert predictor.faults == [] and predictor.survey.measured == ''
    assert found[0].work == 1
    for each in found:
        made = manpp_mm.methods.apply_way(predictor.config, each.way)
        assert each.total_bytes == pytest.approx(measured(made), rel=0.1), each.way
        assert each.needs(2, SIZE) <= 1.05 * each.total_bytes  # the best cuts for them
    by_name = {str(each.way): each for each in found}
    assert by_name['end_to_end_early_loss'].total_bytes <= by_name['end_to_end'].total_bytes
    for name in names[2:]:
        assert by_name[name].total_bytes < by_name['end_to_end'].total_bytes
    assert by_name['exact_early_loss'].work > by_name['end_to_end_early_loss'].work == 1


def test_the_table_and_the_largest_batch(detector_ways):
    _, found = detector_ways
    room = found[0].total_bytes
    lines = ways_table(found, room, SIZE).splitlines()
    assert lines[1].split()[:3] == ['end_to_end', f'{room / 2**20:.0f}', 'MiB']
    assert lines[1].split()[-2:] == ['yes', '2']
    for each in found:
        batch = each.largest_batch(room, SIZE)
        assert each.needs(batch, SIZE) <= room < each.needs(batch + 1, SIZE)
    assert found[0].largest_batch(1000, SIZE) == 0


def test_the_least_work_that_fits(detector_ways):
    predictor, found = detector_ways
    same = [each for each in found if each.way.same_gradients]
    for each in (same[0], same[2], min(same, key=lambda each: each.total_bytes)):
        budget = each.total_bytes / (1 - RESERVE) + 10
        fitted = fit.fit(predictor.config, int(budget), inputs=INPUT)
        plan = fitted.manpp_plan
        assert plan.predicted_bytes <= each.total_bytes
        way = manpp_mm.methods.Way.from_dict(plan)
        assert way.same_gradients
        fits = {str(other.way): other.work for other in same if other.total_bytes <= (1 - RESERVE) * budget}
        assert fits[str(each.way)] <= each.work
        if str(way) in fits:  # with other cuts it may fit only now
            assert fits[str(way)] == min(fits.values())
        assert measured(fitted) <= budget
        assert len(plan.report) >= 4
    assert mode_of(fitted).exact


def test_the_largest_batch_that_fits():
    config = plain(segmentor_config())
    budget = '100MiB'
    fitted = fit.fit(config, budget, 'exact', inputs=(1, 64, 64), batch_size='auto')
    batch = fitted.train_dataloader.batch_size
    assert batch > 2 == config.train_dataloader.batch_size
    assert fitted.manpp_plan.input == [batch, 64, 64]
    with pytest.raises(ValueError, match='is below the floor'):
        fit.fit(config, budget, 'exact', inputs=(batch + 1, 64, 64))
    with pytest.raises(ValueError, match="use 'auto' with memory to find the largest"):
        fit.fit(config, method='exact', batch_size='auto')


@pytest.mark.slow
@pytest.mark.parametrize('make', [detector_config, segmentor_config, classifier_config])
def test_a_method_within_a_budget(make):
    if make is classifier_config:
        pytest.importorskip('mmpretrain')
    config = plain(make(frozen_stages=-1))
    free = fit.fit(config, method='manpp', inputs=INPUT)
    assert method_of(free) == 'manpp' and free.model.backbone.cuts
    budget = int(free.manpp_plan.predicted_bytes / (1 - RESERVE)) + 10
    found = fit.fit(config, budget, 'manpp', inputs=INPUT)
    assert method_of(found) == 'manpp'
    assert measured(found) <= budget
    assert fit.fit(config, budget, 'dgl', inputs=INPUT).model.backbone.auxiliary.branches == []
    share = 0.97 if make is classifier_config else 0.9  # its floor is near
    tight = fit.fit(config, int(share * budget), 'manpp', inputs=INPUT)
    assert measured(tight) <= share * budget


def test_the_config_stands_by_itself(tmp_path):
    config = plain_detector()
    before = config.pretty_text
    fitted = manpp_mm.fit(config, method='exact', inputs=INPUT)
    assert config.pretty_text == before
    fitted.dump(tmp_path / 'fitted.py')
    again = Config.fromfile(tmp_path / 'fitted.py')
    assert method_of(again) == 'exact'
    assert [tuple(cut) for cut in again.model.backbone.cuts] == [tuple(cut) for cut in fitted.manpp_plan.cuts]
    assert again.custom_imports.imports == ['manpp_mm']
    assert fit.apply_plan(config, again.manpp_plan).model == fitted.model


def test_a_swin_transformer():
    config = with_swin(segmentor_config())
    config = plain(config)
    config.optim_wrapper.paramwise_cfg = dict(custom_keys={'norm': dict(decay_mult=0.0)})
    fitted = fit.fit(config, method='manpp', inputs=(2, 224, 448))
    assert fitted.model.backbone.type == 'LocalSwinTransformer'
    assert fitted.model.backbone.auxiliary.stride == 16
    assert fitted.optim_wrapper.paramwise_cfg.custom_keys['branches.learnable.block.norm'] == dict(decay_mult=0.0)
    assert fitted.model.backbone.auxiliary.head.norm_cfg == config.model.decode_head.norm_cfg


def test_below_the_floor():
    config = plain(segmentor_config(frozen_stages=-1))
    with pytest.raises(ValueError, match='is below the floor') as error:
        fit.fit(config, '16MiB', inputs=INPUT)
    floor = int(re.search(r'give at least (\d+)MiB', str(error.value))[1])
    fits = fit.fit(config, f'{floor}MiB', inputs=INPUT)
    assert 0.9 * (floor - 2) * 2**20 <= fits.manpp_plan.predicted_bytes <= 0.9 * floor * 2**20
    tight = f'{0.7 * floor:.0f}MiB'
    with pytest.raises(ValueError, match=r'batch_size=1 \(\d+ MiB\)') as error:
        fit.fit(config, tight, inputs=INPUT)
    height, width = map(int, re.search(r'images of (\d+)x(\d+) \(', str(error.value)).groups())
    assert (height, width) < SIZE
    assert measured(fit.fit(config, tight, inputs=(2, height, width)), 2, height, width) <= 0.7 * floor * 2**20
    assert fit.fit(config, tight, inputs=(1, *SIZE)).train_dataloader.batch_size == 1
    tight = f'{0.95 * floor:.0f}MiB'
    with pytest.raises(ValueError, match=r'; or --amp \(\d+ MiB\)'):
        fit.fit(config, tight, inputs=INPUT)
    config.optim_wrapper.type = 'AmpOptimWrapper'
    assert fit.fit(config, tight, inputs=INPUT).manpp_plan.mixed_precision


def test_mixed_precision_is_predicted_as_such():
    config = plain(segmentor_config())
    config.optim_wrapper.type = 'AmpOptimWrapper'
    predictor = Predictor(config, 2, SIZE)
    (found,) = predictor.predictions(('end_to_end',))[:1]
    real = TrainingStep(config, 'end_to_end', 2, SIZE, amp=torch.bfloat16).peak_bytes()
    assert found.peak_bytes == pytest.approx(real, rel=0.1)
    config.optim_wrapper.type = 'OptimWrapper'
    assert found.peak_bytes < 0.75 * footprint(config, 'end_to_end').peak_at(2, SIZE)


@pytest.mark.slow
def test_attention_over_all_pairs_is_predicted():
    config = upstream('mmdet::detr/detr_r50_8xb2-150e_coco.py')
    config.model.backbone.update(depth=18, base_channels=16)
    config.model.neck.in_channels = [128]
    config.model.encoder.num_layers = config.model.decoder.num_layers = 2
    found = footprint(config, 'end_to_end').peak_at(1, (608, 800))
    assert found == pytest.approx(TrainingStep(config, 'end_to_end', 1, (608, 800)).peak_bytes(), rel=0.1)


def test_where_small_images_do_not_tell_a_real_step_is_measured():
    config = upstream('mmdet::ssd/ssd300_coco.py')
    predictor = Predictor(config, 1, (300, 300))
    assert predictor.survey.measured.startswith('a step on 3 images of 160x352 fails (RuntimeError: ')
    (found, *_) = predictor.predictions(('end_to_end',))
    step = TrainingStep(config, 'end_to_end', 1, (300, 300)).peak_bytes()
    assert found.peak_bytes == max(step, fixed_bytes(config).stepping)


def test_a_backbone_without_a_local_one_fits_too():
    config = upstream('mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py')
    predictor = Predictor(config, 2, (320, 320))
    found = {str(each.way): each for each in predictor.predictions(methods_for(config, None, every=True))}
    assert not any(name.startswith(('exact', 'manpp')) for name in found)
    spared = found['end_to_end_checkpointed']
    assert 'backbone.layer1.0' in spared.way.modules
    budget = int(spared.total_bytes / (1 - RESERVE)) + 10
    assert spared.total_bytes < found['end_to_end'].total_bytes
    fitted = fit.fit(config, budget, inputs=(2, 320, 320))
    assert "There is no local backbone for 'MobileNetV2'" in '\n'.join(fitted.manpp_plan.report)
    step = TrainingStep(fitted, 'end_to_end', 2, (320, 320))
    fixed = fixed_bytes(fitted)
    assert fixed.before(2, (320, 320)) + max(step.peak_bytes(), fixed.stepping) <= budget
    with pytest.raises(ValueError, match="--method manpp: there is no local backbone for .*'MobileNetV2'.*Omit"):
        fit.fit(config, method='manpp', inputs=(2, 320, 320))


def test_a_backbone_of_which_nothing_trains():
    config = plain_detector()
    config.model.backbone.frozen_stages = 4
    predictor = Predictor(config, 2, SIZE)
    found = predictor.predictions(methods_for(config, None, every=True))
    assert [str(each.way) for each in found][::2] == ['end_to_end', 'end_to_end_heads_checkpointed']
    (fault,) = predictor.faults  # of block-local training
    assert fault.startswith('ValueError: the whole backbone is frozen')


@pytest.mark.parametrize(
    ('text', 'expected'),
    [('6GiB', 6 * 2**30), ('1.5 GB', 1500000000), ('800M', 800000000), (1024, 1024), ('2 kib', 2048), ('7B', 7)],
)
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize('text', ['six', '6 gallons', '-1GB', '0', '0GB', '', None])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match='is not a size: write 6GiB or 800MB'):
        parse_size(text)


def test_a_size_without_a_unit():
    with pytest.raises(ValueError, match="memory '8' has no unit: write 8GiB or 8MB"):
        parse_size('8')
    with pytest.raises(ValueError, match='write 536870912B$'):
        parse_size('536870912')


@pytest.mark.parametrize('size', [1, 10**6 + 1, 2**30 - 1, 2**30, 1.2345 * 2**30, 7.999 * 2**30])
def test_a_size_to_give_is_enough_and_hardly_more(size):
    assert size <= parse_size(at_least(size)) <= size * 1.01 + 2**20


def test_what_the_device_has_free(monkeypatch):
    monkeypatch.setattr(budgets.torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(budgets.torch.cuda, 'mem_get_info', lambda: (5 * 2**30, 8 * 2**30))
    assert budget_bytes('auto') == 5 * 2**30
    monkeypatch.setattr(budgets.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match="memory 'auto' uses the free memory of the GPU, but there is no GPU"):
        budget_bytes('auto')


def without_optimizer() -> Config:
    config = segmentor_config()
    config.optim_wrapper = dict(type='OptimWrapper')
    return config


def test_of_several_optimizers_the_one_with_most_state_counts():
    config = segmentor_config()
    adam = dict(optimizer=dict(type='AdamW', lr=1e-4))
    sgd = config.optim_wrapper
    config.optim_wrapper = dict(constructor='Several', backbone=sgd, decode_head=adam)
    several = fixed_bytes(config).static
    config.optim_wrapper = adam
    assert several == fixed_bytes(config).static
    config.optim_wrapper = sgd
    assert several > fixed_bytes(config).static


@pytest.mark.parametrize(
    ('make', 'keys', 'message'),
    [
        (detector_config, {}, r'fit\(\) needs memory, method, or both'),
        (
            detector_config,
            dict(method='magic'),
            "unknown method 'magic', choose from end_to_end, checkpointed, exact, manpp",
        ),
        (
            detector_config,
            dict(method='dgl'),
            r"--method dgl: .*'LocalResNet' already trains with the method 'manpp'. .*auxiliary.branches=\[\] and",
        ),
        (detector_config, dict(method='exact'), "already trains with the method 'manpp'. .*with the plain backbone"),
        (detector_config, dict(memory='8'), 'has no unit'),
        (without_optimizer, dict(memory='8GiB'), 'optim_wrapper sets no optimizer'),
    ],
)
def test_what_is_asked_wrongly(make, keys, message):
    with pytest.raises(ValueError, match=message):
        fit.fit(make(), **keys)


# A training that was fitted goes on as it began.


def auto(root, **backbone):
    config = segmentation_runner_config(root, cuts=None, local_blocks='auto', **backbone)
    config.launcher = 'none'
    return config


def test_a_resumed_training_keeps_its_plan(tmp_path, monkeypatch):
    config = auto(tmp_path, memory_budget='20MiB')
    config.default_hooks.checkpoint.update(interval=2, by_epoch=False)
    fitted, words = running.prepare(config, running.checkpoint_to_resume(config))
    assert words.startswith('Fitted to 20MiB: manpp')
    run = runner(fitted)
    run.train()
    planned = run.model.backbone.cuts
    assert len(planned) > 0
    assert [tuple(cut) for cut in fitted.manpp_plan.cuts] == planned
    monkeypatch.setattr(fit, 'fit', lambda *_, **__: pytest.fail('planned again'))
    again = auto(tmp_path, memory_budget='1MiB')  # a new plan would be refused
    again.resume = True
    assert running.checkpoint_to_resume(again) == str(tmp_path / 'work/iter_4.pth')
    again.train_cfg.max_iters = 6
    again, _ = running.prepare(renamed(again), running.checkpoint_to_resume(again))
    run = running.build_runner(again)
    run.train()
    assert run.model.backbone.cuts == planned
    assert run.iter == 6


def fitted_run(root, **keys: object) -> tuple[Config, str]:
    """The plain detector's config, and a checkpoint of a training of it that was fitted."""
    config = plain(coco_runner_config(root))
    config.launcher = 'none'
    config.train_cfg.max_epochs = 1
    fitted, _ = running.prepare(copy.deepcopy(config), **keys)
    runner(renamed(fitted)).train()
    return config, str(root / 'work/epoch_1.pth')


def test_a_contradiction_to_a_resumed_plan(tmp_path):
    config, checkpoint = fitted_run(tmp_path, method='exact', memory='1GiB')
    for asked in ({}, dict(method='exact'), dict(memory='1GiB'), dict(memory='2GiB', method='exact')):
        kept, words = running.prepare(config, checkpoint, **asked)
        assert method_of(kept) == 'exact' and words.startswith(
            f'Keeping the plan that {checkpoint} was trained with:\nFitted to 1GiB'
        )
    with pytest.raises(
        ValueError, match="was trained with the method 'exact', and a resumed run continues as it began"
    ):
        running.prepare(config, checkpoint, method='manpp')
    with pytest.raises(
        ValueError,
        match=r'--memory 5MiB: with the plan of .*, a step needs .* give at least \d+MiB, or start a new training',
    ):
        running.prepare(config, checkpoint, memory='5MiB')
    larger = copy.deepcopy(config)
    larger.train_dataloader.batch_size = 2000  # what is needed now counts, not what was predicted then
    with pytest.raises(ValueError, match='--memory 1GiB: with the plan of .*, a step needs'):
        running.prepare(larger, checkpoint, memory='1GiB')
    other = fit.fit(config, method='checkpointed')
    other.launcher = 'none'
    with pytest.raises(ValueError, match="with the method 'exact', .* but the config trains with 'checkpointed'"):
        running.prepare(other, checkpoint)


def test_a_checkpoint_without_a_plan(tmp_path):
    config = segmentation_runner_config(tmp_path)
    config.default_hooks.checkpoint.update(interval=4, by_epoch=False)
    runner(config).train()
    checkpoint = str(tmp_path / 'work/iter_4.pth')
    with pytest.raises(ValueError, match="was not trained with model.backbone.local_blocks='auto'"):
        running.prepare(auto(tmp_path), checkpoint)
    with pytest.raises(ValueError, match='was trained without --memory and --method'):
        running.prepare(renamed(config, launcher='none'), checkpoint, memory='1GiB')


def test_a_plan_of_an_earlier_release(tmp_path):
    config = segmentor_config(cuts=None, local_blocks='auto')
    plan = dict(memory_budget='6GiB', input=[2, 64, 64], cuts=[[1, 1]], predicted_bytes=1, table=['a', 'b'])
    torch.save(dict(meta=dict(cfg=Config(dict(manpp_plan=plan)).pretty_text)), tmp_path / 'a.pth')
    config.launcher = 'none'
    kept, words = running.prepare(config, str(tmp_path / 'a.pth'))
    assert kept.model.backbone.cuts == [(1, 1)]
    assert words.splitlines()[1:] == ['a', 'b']


@pytest.mark.parametrize('kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper', AmpOptimWrapper])
def test_mixed_precision_in_whatever_way_it_is_written(kind):
    config = segmentor_config()
    assert not in_mixed_precision(config)
    config.optim_wrapper.type = kind
    assert in_mixed_precision(config)


def test_a_mask_head_is_predicted_with_all_its_regions():
    config = plain_detector()
    roi_head = upstream('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model.roi_head
    roi_head.mask_roi_extractor.out_channels = 16
    roi_head.mask_head.update(in_channels=16, conv_out_channels=64, num_classes=3, num_convs=2)
    config.model.type = 'MaskRCNN'
    config.model.roi_head.update(mask_roi_extractor=roi_head.mask_roi_extractor, mask_head=roi_head.mask_head)
    config.model.train_cfg.rcnn.update(mask_size=28)
    config.model.train_cfg.rcnn.sampler.num = 256
    regions = []
    step = TrainingStep(config, 'end_to_end', 2, SIZE, full_regions=True)
    step.model.roi_head.mask_head.register_forward_pre_hook(lambda _, args: regions.append(len(args[0])))
    step.run()
    assert regions == [2 * 64]  # pos_fraction
    assert footprint(config, 'end_to_end').peak_at(2, SIZE) == pytest.approx(step.peak_bytes(), rel=0.1)


def test_the_optimizers_step_may_be_the_peak():
    config = plain(segmentor_config())
    predictor = Predictor(config, 1, (64, 64))
    (found, *_) = predictor.predictions(('end_to_end',))
    trained = sum(p.numel() for p in build(copy.deepcopy(config), hooked=False).parameters() if p.requires_grad)
    assert found.peak_bytes == 2 * 4 * trained


def test_a_model_without_a_backbone_of_its_own():
    with pytest.raises(ValueError, match=r"model.type='SoftTeacher' has no backbone of its own .*cannot be fitted"):
        fit.fit(Config(dict(model=dict(type='SoftTeacher', detector=dict()))), '8GiB', inputs=INPUT)


def test_other_processes_get_the_first_ones_plan(tmp_path, monkeypatch):
    config = auto(tmp_path)
    sent = []
    monkeypatch.setattr(running, 'broadcast_object_list', lambda message: sent.append(list(message)))
    planned, _ = running.prepare(config)
    cuts = planned.model.backbone.cuts
    assert sent[0][0]['cuts'] == [list(cut) for cut in cuts]
    with pytest.raises(ValueError, match='is not a size'):
        running.prepare(auto(tmp_path, memory_budget='a lot'))
    assert sent[1][0] is None and "memory 'a lot'" in sent[1][1]

    monkeypatch.setattr(running, '_fitted', lambda *_: pytest.fail('planned in another process'))
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr(running, 'start_processes', lambda config: None)
    for message, expected in zip(sent, (cuts, None), strict=True):
        monkeypatch.setattr(
            running, 'broadcast_object_list', lambda own, message=message: own.__setitem__(slice(2), message)
        )
        other = auto(tmp_path)
        other.launcher = 'a launcher'
        if expected is None:
            with pytest.raises(RuntimeError, match="the first process could not plan: memory 'a lot'"):
                running.prepare(other)
        else:
            found, words = running.prepare(other, predict=True)
            assert words == ''
            assert found.model.backbone.cuts == expected


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (dict(memory_budget='a lot'), "memory 'a lot' is not a size"),
        (dict(memory_budget='1MiB'), 'is below the floor'),
        (dict(auxiliary=[]), 'one auxiliary='),
        (dict(cuts=[(1, 1)]), 'set model.backbone.cuts=None'),
    ],
)
def test_plans_that_cannot_be_made(tmp_path, backbone, message):
    config = auto(tmp_path)
    config.model.backbone.update(backbone)
    with pytest.raises(ValueError, match=message):
        running.prepare(config)


@pytest.mark.parametrize('keys', [{}, dict(method='manpp')])
def test_a_configs_own_budget_holds_with_its_method_named(keys):
    config = segmentor_config(cuts=None, local_blocks='auto', memory_budget='1MiB')
    with pytest.raises(ValueError, match='memory 1MiB is below the floor'):
        fit.fit(config, inputs=INPUT, **keys)
    fits = fit.fit(config, '1GiB', inputs=INPUT, **keys)
    assert fits.manpp_plan.memory == '1GiB' and 'memory_budget' not in fits.model.backbone


def test_ways_that_fail_are_named_below_the_floor():
    predictor = Predictor(plain_detector(), 2, (64, 128), room=1)
    found = predictor.predictions(('end_to_end',))
    predictor.faults.append('RuntimeError: a head that fails')
    words = fit.below_the_floor(predictor, found, 1)
    assert words.endswith('. Not possible: RuntimeError: a head that fails')


def test_a_plan_whose_own_step_misses_the_budget_gives_way_to_the_next(monkeypatch):
    config = plain(segmentor_config(frozen_stages=-1))
    free = fit.fit(config, '8GiB', 'manpp', inputs=INPUT)
    room = int(1.02 * free.manpp_plan.predicted_bytes)
    taken, tried = Predictor._taken, []

    def first_missing(self: Predictor, way: Way) -> Prediction:
        found = taken(self, way)
        if way.mode == free_way.mode:
            tried.append(way.cuts)
            if len(tried) == 1:
                found.peak_bytes += room
        return found

    free_way = Way.from_dict(free.manpp_plan)
    monkeypatch.setattr(Predictor, '_taken', first_missing)
    found = Predictor(config, 2, SIZE, room).predictions(('manpp',))[0]
    assert len(tried) == 2 and tried[0] == free_way.cuts and found.way.cuts == tried[1] != tried[0]
    assert found.total_bytes <= room


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    config = tmp_path / 'plain.py'
    plain(segmentor_config()).dump(config)
    argv = [str(config), '--input', '2', '128', '256']
    command.main([*argv, '--memory', '1GiB'])
    found = capsys.readouterr().out
    assert 'manpp_checkpointed' in found and 'cuts=[' in found
    command.main([*argv, '--method', 'exact', '--write', str(tmp_path / 'exact.py'), '--measure'])
    factor = float(re.search(r'predicted ([\d.]+) of the former', capsys.readouterr().out)[1])
    assert factor == pytest.approx(1, abs=0.1)
    assert method_of(Config.fromfile(tmp_path / 'exact.py')) == 'exact'


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--memory', '8GiB', '--write', 'a.txt'], '--write a.txt: the file name must end in .py'),
        (['--memory', '8GiB', '--write', 'nowhere/a.py'], '--write nowhere/a.py: the folder nowhere does not exist'),
        (['--memory', '8'], "--memory: memory '8' has no unit: write 8GiB or 8MB"),
        (['--method', 'magic'], "invalid choice: 'magic' (choose from 'end_to_end'"),
    ],
)
def test_flags_are_checked_before_anything_is_planned(flags, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        command.parse_args(['config.py', *flags])
    assert message in capsys.readouterr().err


def test_what_is_written_needs_a_budget_or_a_method(tmp_path):
    config = tmp_path / 'config.py'
    argv = [str(config), '--input', '2', '64', '128', '--write', str(tmp_path / 'a.py')]
    plain(segmentor_config()).dump(config)
    with pytest.raises(ValueError, match='--write and --measure need --memory or --method'):
        command.main(argv)
    segmentor_config(cuts=None, local_blocks='auto', memory_budget='1GiB').dump(config)
    command.main(argv)
    assert Config.fromfile(tmp_path / 'a.py').manpp_plan.memory == '1GiB'


def test_what_nothing_fits_is_said_below_the_table(tmp_path, capsys):
    config = tmp_path / 'plain.py'
    plain(segmentor_config()).dump(config)
    command.main([str(config), '--input', '2', '64', '128', '--memory', '5MiB', '--method', 'end_to_end'])
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r'memory 5MiB is below the floor: give at least \d+MiB. 2 images of 64x128 need', last)


def test_a_configs_own_cuts_are_kept_on_demand():
    predictor = Predictor(segmentor_config(), 2, SIZE)
    exact, local = predictor.predictions(('exact', 'manpp'), keep_cuts=True)[:2]
    assert [exact.way.cuts, local.way.cuts] == [((1, 1), (2, 0), (2, 1))] * 2
