"""Plans of cuts: what is predicted is what is measured, and no cut by hand does better."""

import copy
from itertools import combinations

import pytest
from helpers import build, detector_config, segmentor_config, with_swin
from runners import renamed, runner, segmentation_runner_config

from manpp_mm.backbones import plain_model
from manpp_mm.cli import runner as running
from manpp_mm.memory import TrainingStep
from manpp_mm.memory import choose as planning
from manpp_mm.memory.footprint import footprint, small_size
from manpp_mm.memory.inputs import model_bytes, training_input
from manpp_mm.memory.plan import Plan, plans
from manpp_mm.memory.profile import profile
from manpp_mm.memory.report import choice_table

SIZE = (320, 640)
CONFIGS = {'detector': detector_config, 'segmentor': segmentor_config}
SWIN_SIZE = (448, 672)  # windows of 7 fit in at every stride


def measured(config, cuts, mode='local') -> int:
    config = copy.deepcopy(config)
    planning.apply_cuts(config, cuts)
    return TrainingStep(config, mode, 2, SIZE).peak_bytes()


@pytest.mark.parametrize('mode', ['end_to_end', 'end_to_end_checkpointed', 'exact', 'local', 'local_checkpointed'])
@pytest.mark.parametrize('name', CONFIGS)
def test_a_small_step_predicts_a_larger_one(name, mode):
    config = CONFIGS[name]()
    found = footprint(config, mode).peak_at(2, SIZE)
    assert found == pytest.approx(TrainingStep(config, mode, 2, SIZE).peak_bytes(), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['end_to_end', 'exact', 'local', 'local_checkpointed'])
def test_a_small_step_of_a_swin_transformer_predicts_a_larger_one(mode):
    config = with_swin(detector_config(), cuts=[(0, 0), (1, 0)])
    found = footprint(config, mode).peak_at(2, SWIN_SIZE)
    assert found == pytest.approx(TrainingStep(config, mode, 2, SWIN_SIZE).peak_bytes(), rel=0.1)


def test_the_small_images_of_a_family_are_its_twins_too():
    config = with_swin(segmentor_config())
    local = small_size(config)
    config.model = plain_model(config)
    assert small_size(config) == local == (224, 1120)
    assert small_size(with_swin(detector_config(), window_size=12)) == (384, 1920)
    assert small_size(segmentor_config()) == (160, 352)


@pytest.mark.slow
def test_a_swin_transformers_plan():
    config = with_swin(detector_config())
    found = planning.choose_plan(plans(profile(config, 2, SWIN_SIZE)), 0)
    assert len(found.cuts) > 0
    planning.apply_cuts(config, found.cuts)
    assert found.peak_bytes == pytest.approx(TrainingStep(config, 'local', 2, SWIN_SIZE).peak_bytes(), rel=0.1)


def test_work_of_exact_is_a_forward_more():
    config = segmentor_config()
    flops = {mode: footprint(config, mode).flops_at(2, SIZE) for mode in ('end_to_end', 'exact', 'frozen')}
    assert flops['frozen'] < flops['end_to_end'] < flops['exact'] < 4 / 3 * flops['end_to_end']


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_no_single_or_double_cut_is_better(name):
    config = CONFIGS[name]()
    units = profile(config, 2, SIZE)
    found = planning.choose_plan(plans(units), 0)
    peak = measured(config, found.cuts)
    assert found.peak_bytes == pytest.approx(peak, rel=0.1)
    by_force = [
        measured(config, cuts) for number in (1, 2) for cuts in combinations([unit.cut for unit in units[:-1]], number)
    ]
    assert len(by_force) == 28
    assert peak <= planning.NEARLY * min(by_force)
    lowest = min(plans(units), key=lambda plan: plan.peak_bytes)
    assert measured(config, lowest.cuts) <= min(by_force)


def test_the_fewest_blocks_within_a_budget():
    candidates = plans(profile(segmentor_config(), 2, SIZE))
    assert [len(found.cuts) for found in candidates] == list(range(8))
    assert all(sum(len(units) for units, _ in found.blocks) == 8 for found in candidates)
    static = 1000
    for found in candidates[:3]:
        budget = static + found.auxiliary_bytes + found.peak_bytes
        chosen = planning.choose_plan(candidates, static, budget)
        assert len(chosen.cuts) <= len(found.cuts)
        assert static + chosen.auxiliary_bytes + chosen.peak_bytes <= budget
    best = planning.choose_plan(candidates, static)
    lowest = min(found.peak_bytes for found in candidates)
    assert [found.peak_bytes <= planning.NEARLY * lowest for found in candidates].index(True) == len(best.cuts)
    with pytest.raises(ValueError, match=r'memory_budget=.*GiB is below the floor: the best plan needs'):
        planning.choose_plan(candidates, static, static + lowest - 1)  # not even without auxiliary networks


def test_a_block_that_saves_next_to_nothing_is_left_out():
    candidates = [Plan([(0, 0)] * cuts, [], peak, 0) for cuts, peak in enumerate([200, 103, 102, 100])]
    assert planning.choose_plan(candidates, 0) is candidates[2]


def test_frozen_units_are_no_place_for_a_cut():
    units = profile(detector_config(frozen_stages=1), 2, SIZE)
    assert [unit.cut for unit in units] == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [('6GiB', 6 * 2**30), ('1.5 GB', 1500000000), ('800M', 800000000), (1024, 1024), ('2 kib', 2048)],
)
def test_sizes(text, expected):
    assert planning.parse_size(text) == expected


@pytest.mark.parametrize('text', ['six', '6 gallons', '-1GB', '0', '', None])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a size: write '6GiB'"):
        planning.parse_size(text)


def test_input_of_the_shipped_pipelines():
    config = detector_config()
    assert training_input(config) == (2, (800, 1333))
    config.train_dataloader.dataset.pipeline = []
    with pytest.raises(ValueError, match='names no image size'):
        training_input(config)
    assert training_input(segmentor_config()) == (2, (64, 64))


@pytest.mark.slow
def test_the_largest_batch():
    config = segmentor_config()
    found = planning.choices(config, 1, SIZE, budget=300_000_000)
    for choice in found:
        step = footprint(config, choice.mode)
        fixed = model_bytes(config, local=choice.mode.local)
        need = [fixed + n * 12 * SIZE[0] * SIZE[1] + step.peak_at(n, SIZE) for n in range(1, 100)]
        assert choice.largest_batch == sum(total <= 300_000_000 for total in need) > 0
    assert found[0].relative_time == 1
    assert 'end_to_end_heads_checkpointed' in choice_table(found, 300_000_000)


def test_a_configs_own_cuts():
    assert planning.own_cuts(detector_config()) == [(1, 1), (2, 1)]
    assert planning.own_cuts(segmentor_config(cuts=None, local_blocks=2)) == [(1, 1)]
    with pytest.raises(ValueError, match='is planned before the model is built'):
        planning.own_cuts(segmentor_config(cuts=None, local_blocks='auto'))


def test_gradients_that_accumulation_keeps_count(tmp_path):
    config = segmentor_config()
    once = model_bytes(config, local=False)
    config.optim_wrapper.accumulative_counts = 4
    model = build(segmentor_config(gradient='exact'), hooked=False)
    kept = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    assert model_bytes(config, local=False) - once == kept


def auto(root, **backbone):
    return segmentation_runner_config(root, cuts=None, local_blocks='auto', **backbone)


def test_a_resumed_training_keeps_the_plan(tmp_path, monkeypatch):
    config = auto(tmp_path, memory_budget='9.6MiB')
    config.default_hooks.checkpoint.update(interval=2, by_epoch=False)
    planning.plan_cuts(config, running.checkpoint_to_resume(config))
    run = runner(config)
    run.train()
    planned = run.model.backbone.cuts
    assert len(planned) > 0
    assert [tuple(cut) for cut in config.manpp_plan.cuts] == planned
    monkeypatch.setattr(planning, 'plan_config', lambda config: pytest.fail('planned again'))
    again = auto(tmp_path, memory_budget='1MiB')  # a new plan would be refused
    again.resume = True
    assert running.checkpoint_to_resume(again) == str(tmp_path / 'work/iter_4.pth')
    again.train_cfg.max_iters = 6
    planning.plan_cuts(again, running.checkpoint_to_resume(again))
    run = running.build_runner(renamed(again, launcher='none'))
    run.train()
    assert run.model.backbone.cuts == planned
    assert run.iter == 6


def test_other_processes_get_the_first_ones_plan(tmp_path, monkeypatch):
    config = auto(tmp_path)
    config.launcher = 'none'
    sent = []
    monkeypatch.setattr(running, 'broadcast_object_list', lambda message: sent.append(list(message)))
    running.prepare(config)
    assert sent[0][0]['cuts'] == [list(cut) for cut in config.model.backbone.cuts]
    broken = auto(tmp_path, memory_budget='a lot')
    broken.launcher = 'none'
    with pytest.raises(ValueError, match='is not a size'):
        running.prepare(broken)
    assert sent[1][0] is None and "memory_budget='a lot'" in sent[1][1]

    monkeypatch.setattr(running, 'plan_cuts', lambda *_: pytest.fail('planned in another process'))
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr(running, 'start_processes', lambda config: None)
    for message, expected in zip(sent, (config.model.backbone.cuts, None), strict=True):
        monkeypatch.setattr(
            running, 'broadcast_object_list', lambda own, message=message: own.__setitem__(slice(2), message)
        )
        other = auto(tmp_path)
        other.launcher = 'a launcher'
        if expected is None:
            with pytest.raises(RuntimeError, match='the first process could not plan the cuts: memory_budget'):
                running.prepare(other)
        else:
            assert running.prepare(other, predict=True) == ''
            assert other.model.backbone.cuts == expected


def test_a_checkpoint_without_a_plan(tmp_path):
    config = segmentation_runner_config(tmp_path)
    config.default_hooks.checkpoint.update(interval=4, by_epoch=False)
    runner(config).train()
    with pytest.raises(ValueError, match="was not trained with model.backbone.local_blocks='auto'"):
        planning.plan_cuts(auto(tmp_path), str(tmp_path / 'work/iter_4.pth'))


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        (dict(memory_budget='a lot'), "memory_budget='a lot' is not a size"),
        (dict(memory_budget='1MiB'), 'is below the floor'),
        (dict(auxiliary=[]), 'one auxiliary='),
        (dict(cuts=[(1, 1)]), 'set model.backbone.cuts=None'),
        (dict(gradient='exact'), 'plans block-local training: set cuts'),
    ],
)
def test_plans_that_cannot_be_made(tmp_path, backbone, message):
    config = auto(tmp_path)
    config.model.backbone.update(backbone)
    with pytest.raises(ValueError, match=message):
        planning.plan_cuts(config)


def test_padding_that_hides_the_small_images(tmp_path):
    config = detector_config()
    config.model.data_preprocessor.pad_size_divisor = 128
    with pytest.raises(ValueError, match='pad_size_divisor must divide 32'):
        profile(config, 2, SIZE)


@pytest.mark.parametrize('keys', [dict(local_blocks='auto', cuts=None), dict(memory_budget='6GiB')])
def test_a_backbone_does_not_plan_itself(keys):
    with pytest.raises(ValueError, match='run tools/plan_cuts.py CONFIG and write its cuts'):
        build(detector_config(**keys))
