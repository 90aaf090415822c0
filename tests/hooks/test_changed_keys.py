import pytest
import torch
from helpers import AUXILIARY, FCOS
from runners import coco_runner_config, renamed, runner

from manpp_mm.hooks.changed_keys import changed_keys, config_of


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
    assert changed_keys(config_of(torch.load(checkpoint)), config) == []


def test_a_plain_checkpoint_says_nothing(tmp_path):
    config, _ = trained(tmp_path)
    plain = config.copy()
    assert config_of({}) is None
    plain.model = config.model | dict(backbone=dict(type='ResNet', depth=18))
    assert changed_keys(plain, config) == []
