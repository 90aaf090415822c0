"""What a step dispatches: the counter itself, and that a local step grows no new operators or waits."""

import pytest
import torch
from helpers import detector_config, segmentor_config

from manpp_mm.memory import StepCounts, TrainingStep

SIZE = (64, 64)
GROWTH = 1.05
OPERATORS = {
    ('detector', 'local'): 1710,
    ('detector', 'exact'): 1387,
    ('segmentor', 'local'): 511,
    ('segmentor', 'exact'): 323,
}
"""Operators of a step with two cuts (detector) and three (segmentor)."""
CONFIGS = dict(detector=detector_config, segmentor=segmentor_config)


def counted(function) -> tuple[int, int]:
    with StepCounts() as counts:
        function()
    return counts.operators, counts.synchronisations


def test_views_and_allocations_are_no_operators():
    x = torch.rand(4, 6)
    assert counted(lambda: x.t().reshape(2, 12)[:1].unsqueeze(0).detach()) == (1, 0)  # the copy of reshape
    assert counted(lambda: torch.empty(3)) == (0, 0)
    assert counted(lambda: torch.relu(x) + 1) == (2, 0)


@pytest.mark.parametrize(
    'function',
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0.5],
        lambda x: (x > 0.5).nonzero(),
        lambda x: torch.where(x > 0.5),
        lambda x: x.new_tensor([1.0]),
        lambda x: x.masked_select(x > 0.5),
    ],
)
def test_waits(function):
    x = torch.rand(4, 6)
    assert counted(lambda: function(x))[1] == 1


def test_no_waits():
    x, index = torch.rand(4, 6), torch.zeros(1, 6, dtype=torch.long)
    for function in (lambda: x.masked_fill(x > 0.5, 0), lambda: x[1:3], lambda: x.gather(0, index), lambda: x[index]):
        assert counted(function)[1] == 0
    assert counted(lambda: x.__setitem__(x > 0.5, 0.0))[1] == 0
    assert counted(lambda: x.__setitem__(x > -1, torch.zeros(24)))[1] == 1


def test_flops_are_torchs_own():
    from torch.utils.flop_counter import FlopCounterMode

    step = TrainingStep(segmentor_config(), 'local', 2, SIZE)
    with FlopCounterMode(display=False) as counter:
        step.run()
    assert step.counts().flops == counter.get_total_flops()


@pytest.mark.parametrize(('task', 'mode'), OPERATORS)
def test_a_step_dispatches_no_more_than_it_did(task, mode):
    step = TrainingStep(CONFIGS[task](), mode, 2, SIZE)
    step.run()  # what is made once
    found = step.counts().operators
    assert found <= OPERATORS[task, mode] * GROWTH
    assert found >= OPERATORS[task, mode] / GROWTH, 'write down the lower number'


@pytest.mark.parametrize('task', CONFIGS)
def test_a_local_step_waits_no_more_than_an_end_to_end_step(task):
    steps = {mode: TrainingStep(CONFIGS[task](), mode, 2, SIZE) for mode in ('local', 'end_to_end', 'exact')}
    waits = {}
    for mode, step in steps.items():
        # With other weights the RPN's proposals would be others, and the waits of their assignment.
        step.model.load_state_dict(steps['local'].model.state_dict(), strict=False)
        torch.manual_seed(0)
        waits[mode] = step.counts().synchronisations
    assert waits['local'] <= waits['end_to_end']
    assert waits['exact'] <= waits['end_to_end']
