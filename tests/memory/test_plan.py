"""Plans of cuts: what is predicted is what is measured, and no cut by hand does better."""

import copy
from itertools import combinations

import pytest
from helpers import build, detector_config, segmentor_config, with_swin

from manpp_mm.backbones import plain_model
from manpp_mm.backbones.config import with_cuts
from manpp_mm.memory import TrainingStep
from manpp_mm.memory.choose import NEARLY, choose_plan
from manpp_mm.memory.footprint import footprint, small_size
from manpp_mm.memory.inputs import fixed_bytes
from manpp_mm.memory.plan import Plan
from manpp_mm.memory.predict import own_cuts
from manpp_mm.memory.profile import ExactProfile, LocalProfile

SIZE = (320, 640)
CONFIGS = {'detector': detector_config, 'segmentor': segmentor_config}
SWIN_SIZE = (448, 672)  # windows of 7 fit in at every stride


def measured(config, cuts, mode='local') -> int:
    config = copy.deepcopy(config)
    config.model.backbone = with_cuts(config.model.backbone, cuts)
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
    found = choose_plan(LocalProfile(config).plans(2, SWIN_SIZE), 0)
    assert len(found.cuts) > 0
    config.model.backbone = with_cuts(config.model.backbone, found.cuts)
    assert found.peak_bytes == pytest.approx(TrainingStep(config, 'local', 2, SWIN_SIZE).peak_bytes(), rel=0.1)


def test_work_of_exact_is_a_forward_more():
    config = segmentor_config()
    flops = {mode: footprint(config, mode).flops_at(2, SIZE) for mode in ('end_to_end', 'exact', 'frozen')}
    assert flops['frozen'] < flops['end_to_end'] < flops['exact'] < 4 / 3 * flops['end_to_end']


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_no_single_or_double_cut_is_better(name):
    config = CONFIGS[name]()
    profile = LocalProfile(config)
    static = {unit.cut: unit.static for unit in profile.units(2, SIZE)}

    def needed(cuts) -> int:
        return sum(static[cut] for cut in cuts) + measured(config, cuts)

    plans = profile.plans(2, SIZE)
    found = choose_plan(plans, 0)
    least = needed(found.cuts)
    assert found.auxiliary_bytes + found.peak_bytes == pytest.approx(least, rel=0.1)
    by_force = [needed(cuts) for number in (1, 2) for cuts in combinations(profile.cuts[:-1], number)]
    assert len(by_force) == 28
    assert least <= NEARLY * min(by_force)
    lowest = min(plans, key=lambda plan: plan.auxiliary_bytes + plan.peak_bytes)
    assert needed(lowest.cuts) <= min(by_force)


@pytest.mark.slow
@pytest.mark.parametrize('frozen', [-1, 1])
def test_no_cuts_with_the_same_end_are_better_by_exact_gradients(frozen):
    config = detector_config(frozen_stages=frozen, gradient='exact')
    profile = ExactProfile(config)
    plans = profile.plans(2, SIZE)
    units = [(stage, unit) for stage in range(4) for unit in range(2)][2 * (frozen == 1) :]
    assert [plan.cuts[-1] for plan in plans[1:]] == units[:-1]
    end_to_end = profile.step.flops_at(2, SIZE)
    for plan in plans:
        assert plan.peak_bytes == pytest.approx(measured(config, plan.cuts, 'exact'), rel=0.1)
        again = copy.deepcopy(config)
        again.model.backbone = with_cuts(config.model.backbone, plan.cuts)
        assert footprint(again, 'exact').flops_at(2, SIZE) == pytest.approx(end_to_end + plan.work, rel=0.01)
    last = plans[-2]
    before = units[: units.index(last.cuts[-1])]
    by_force = [measured(config, [*cuts, last.cuts[-1]], 'exact') for n in range(3) for cuts in combinations(before, n)]
    assert measured(config, last.cuts, 'exact') <= NEARLY * min(by_force)


def test_the_least_that_runs_again_within_a_budget():
    plans = [Plan([(0, 0)] * n, peak, work=n) for n, peak in enumerate([200, 150, 120, 119])]
    assert choose_plan(plans, 10, 165) is plans[1]
    assert choose_plan(plans, 10, 100) is choose_plan(plans, 10) is plans[2]  # nothing fits; about the lowest


def test_the_fewest_blocks_within_a_budget():
    candidates = LocalProfile(segmentor_config()).plans(2, SIZE)
    assert [len(found.cuts) for found in candidates] == list(range(8))
    static = 1000
    for found in candidates[:3]:
        room = static + found.auxiliary_bytes + found.peak_bytes
        chosen = choose_plan(candidates, static, room)
        assert len(chosen.cuts) <= len(found.cuts)
        assert static + chosen.auxiliary_bytes + chosen.peak_bytes <= room
    best = choose_plan(candidates, static)
    needed = [found.auxiliary_bytes + found.peak_bytes for found in candidates]
    assert [each <= NEARLY * min(needed) for each in needed].index(True) == len(best.cuts)


def test_a_block_that_saves_next_to_nothing_is_left_out():
    candidates = [Plan([(0, 0)] * cuts, peak) for cuts, peak in enumerate([200, 103, 102, 100])]
    assert choose_plan(candidates, 0) is candidates[2]


def test_a_cut_saves_nothing_where_the_optimizers_step_is_the_peak():
    config, size = detector_config(), (64, 64)
    fixed, profile = fixed_bytes(config, local=False), LocalProfile(config)
    candidates = profile.plans(1, size, fixed.stepping)
    assert min(plan.peak_bytes for plan in candidates) == fixed.stepping == candidates[0].peak_bytes
    assert all(plan.peak_bytes > fixed.stepping for plan in candidates[1:])  # their auxiliary networks step, too
    assert choose_plan(candidates[1:], 0) is candidates[1]
    (cut,) = candidates[1].cuts
    static = {unit.cut: unit.static for unit in profile.units(1, size)}
    assert static[cut] == candidates[1].auxiliary_bytes == min(static[each] for each in profile.cuts[:-1])
    exact = ExactProfile(config).plans(1, size, fixed.stepping)
    assert {plan.peak_bytes for plan in exact} == {fixed.stepping}
    assert choose_plan(exact[1:], 0) is exact[1]


def test_frozen_units_are_no_place_for_a_cut():
    assert LocalProfile(detector_config(frozen_stages=1)).cuts == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]


def test_a_configs_own_cuts():
    assert own_cuts(detector_config()) == [(1, 1), (2, 1)]
    assert own_cuts(segmentor_config(cuts=None, local_blocks=2)) == [(1, 1)]
    with pytest.raises(ValueError, match='must be planned before the model is built'):
        own_cuts(segmentor_config(cuts=None, local_blocks='auto'))


def test_gradients_that_accumulation_keeps_count():
    config = segmentor_config()
    once = fixed_bytes(config, local=False).static
    config.optim_wrapper.accumulative_counts = 4
    model = build(segmentor_config(gradient='exact'), hooked=False)
    kept = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    assert fixed_bytes(config, local=False).static - once == kept


def test_averaged_weights_and_buckets_count():
    config = segmentor_config()
    once = fixed_bytes(config).static
    model = build(segmentor_config(), hooked=False)
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    trained = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    config.custom_hooks = [dict(type='EMAHook')]
    assert fixed_bytes(config).static - once == weights
    config.launcher = 'pytorch'
    assert fixed_bytes(config).static - once == weights + trained


@pytest.mark.parametrize('keys', [dict(local_blocks='auto', cuts=None), dict(memory_budget='6GiB')])
def test_a_backbone_does_not_plan_itself(keys):
    with pytest.raises(ValueError, match='write a config with cuts by tools/fit.py CONFIG --write FILE'):
        build(detector_config(**keys))
