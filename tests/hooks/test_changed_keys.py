import pytest
import torch
from helpers import AUXILIARY, FCOS
from runners import coco_runner_config, renamed, runner

from manpp_mm.checkpoint_file import trained_config
from manpp_mm.hooks import LocalLearningHook
from manpp_mm.hooks.changed_keys import changed_keys


def trained(tmp_path, **auxiliary):
    config = coco_runner_config(tmp_path, auxiliary=AUXILIARY | auxiliary)
    run = runner(config)
    run.train()
    return config, tmp_path / 'work/epoch_2.pth'


def resumed(config, checkpoint):
    config = renamed(config)
    config.update(resume=True, load_from=str(checkpoint))
    config.train_cfg.max_epochs = 3
    run = runner(config)
    return run


def test_a_resumed_training_names_the_keys_that_changed(tmp_path, monkeypatch):
    config, checkpoint = trained(tmp_path, stride=None)
    config.model.backbone.auxiliary.update(stride=16, head=dict(FCOS, type='FCOSHead'))
    run = resumed(config, checkpoint)
    warnings = []
    monkeypatch.setattr(run.logger, 'warning', lambda text, *_: warnings.append(text))
    run.train()
    (warning,) = [text for text in warnings if 'auxiliary networks' in text]
    assert 'model.backbone.auxiliary.stride=16 (it was None)' in warning
    assert "model.backbone.auxiliary.head.type='FCOSHead' (it was 'PaddedFCOSHead')" in warning
    assert 'projection' not in warning


def test_other_cuts_are_named_before_they_are_refused(tmp_path, monkeypatch):
    config, checkpoint = trained(tmp_path)
    config.model.backbone.cuts = [(1, 0)]
    run = resumed(config, checkpoint)
    warnings = []
    monkeypatch.setattr(run.logger, 'warning', lambda text, *_: warnings.append(text))
    with pytest.raises(RuntimeError, match='trained with other cuts'):
        run.train()
    assert 'model.backbone.cuts=[[1, 0]] (it was [[1, 1], [2, 1]])' in warnings[0]


def test_the_same_config_is_not_mentioned(tmp_path):
    config, checkpoint = trained(tmp_path)
    assert changed_keys(trained_config(torch.load(checkpoint)), config) == []


def test_a_plain_checkpoint_says_nothing(tmp_path, monkeypatch):
    config = coco_runner_config(tmp_path)
    run = runner(config)
    warnings = []
    monkeypatch.setattr(run.logger, 'warning', lambda text, *_: warnings.append(text))
    text = "model = dict(backbone=dict(type='LocalResNet', cuts=[(0, 1)]))"
    hook = next(hook for hook in run.hooks if isinstance(hook, LocalLearningHook))
    hook.after_load_checkpoint(run, dict(meta=dict(cfg=text), state_dict={'backbone.conv1.weight': 0}))
    assert warnings == []
    hook.after_load_checkpoint(run, dict(meta=dict(cfg=text), state_dict={'backbone.auxiliary.0.heads.0.x': 0}))
    assert 'model.backbone.cuts' in warnings[0]
    assert changed_keys(dict(model=dict(backbone=dict(type='ResNet', depth=18))), config) == []


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('a = dict(b=[dict(c=(1, -2.5))], d=None)\ne = "x"', dict(a=dict(b=[dict(c=[1, -2.5])], d=None), e='x')),
        ("a = {'b c': dict(d=True)}", dict(a={'b c': dict(d=True)})),
        ('a = inf\nb = 1', dict(b=1)),
        ('a = __import__("os").getcwd()\nimport b\nb.c()', {}),
        ('a = = 1', {}),
        (dict(a=1), {}),
        (None, {}),
    ],
)
def test_a_config_is_read_and_not_run(text, expected):
    assert trained_config(dict(meta=dict(cfg=text))) == expected
    assert trained_config(dict(meta=None)) == {}
