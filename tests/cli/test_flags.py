import argparse
import re
from pathlib import Path

import pytest
import torch
from helpers import build, detector_config
from mmengine.config import Config
from mmengine.registry import MODELS

from manpp_mm.checkpoint_file import check_checkpoint_file, check_fits, read_checkpoint
from manpp_mm.checks.files import check_data
from manpp_mm.cli import arguments as shared
from manpp_mm.cli import runner as running
from manpp_mm.cli.runner import predict_memory as predict
from manpp_mm.memory import TrainingStep
from manpp_mm.memory.budget import parse_size

CONFIG = Path(__file__).parents[2] / 'configs' / 'faster_rcnn_r50_manpp_coco.py'


def arguments(*flags: str, config: Path = CONFIG) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    shared.add_common_arguments(parser)
    return parser.parse_args([str(config), *flags])


def test_common_flags():
    config = shared.load_config(
        arguments(
            '--work-dir', 'here', '--launcher', 'slurm', '--local-rank=0', '--cfg-options', 'train_cfg.max_epochs=3'
        )
    )
    assert (config.work_dir, config.launcher, config.train_cfg.max_epochs) == ('here', 'slurm', 3)
    assert shared.load_config(arguments()).work_dir == 'work_dirs/faster_rcnn_r50_manpp_coco'


def test_coco_root_moves_every_path(monkeypatch):
    monkeypatch.setenv('COCO_ROOT', 'elsewhere')
    config = Config.fromfile(CONFIG)
    for split in ('train', 'val', 'test'):
        assert config[f'{split}_dataloader'].dataset.data_root == 'elsewhere/'
    for split in ('val', 'test'):
        assert config[f'{split}_evaluator'].ann_file == 'elsewhere/annotations/instances_val2017.json'
    assert 'data/coco' not in str({k: v for k, v in config.items() if 'dataloader' in k or 'evaluator' in k})


def test_amp_and_learning_rate():
    config = Config.fromfile(CONFIG)
    shared.enable_amp(config)
    shared.enable_auto_scale_lr(config)
    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.optim_wrapper.loss_scale == 'dynamic'
    assert config.auto_scale_lr.enable


def test_mixed_precision_needs_a_gpu(monkeypatch):
    config = Config.fromfile(CONFIG)
    shared.check_device(config)
    shared.enable_amp(config)
    with pytest.raises(ValueError, match='mixed precision .* needs a GPU'):
        shared.check_device(config)
    monkeypatch.setattr(shared, 'get_device', lambda: 'cuda')
    shared.check_device(config)


def test_resume():
    config = Config.fromfile(CONFIG)
    shared.enable_resume(config, 'auto')
    assert (config.resume, config.load_from) == (True, None)
    shared.enable_resume(config, 'a.pth')
    assert (config.resume, config.load_from) == (True, 'a.pth')


@pytest.mark.parametrize(
    ('keys', 'mode'), [({}, 'local'), (dict(gradient='exact', with_cp=True), 'exact_checkpointed')]
)
def test_memory_is_predicted_before_training(keys, mode):
    config = detector_config(**keys)
    words = re.fullmatch(r'A step on 2 images of 800x1344 .* peak at (.*iB) beside (.*iB) of .*', predict(config))
    measured = TrainingStep(config, mode, 2, (800, 1344)).peak_bytes()
    assert parse_size(words[1]) == pytest.approx(measured, rel=0.1)
    images = 2 * 3 * 800 * 1344 * 4
    parameters = sum(p.numel() for p in MODELS.build(config.model).parameters())
    assert parse_size(words[2]) == pytest.approx(images + 2 * 4 * parameters, rel=0.05)  # SGD's momentum


def test_a_memory_that_cannot_be_predicted_stops_nothing():
    config = detector_config()
    config.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile')]
    assert predict(config).startswith('The memory of a step cannot be predicted: ValueError: the training pipeline')
    config.train_dataloader.dataset.pipeline = [dict(type='Resize', scale_factor=0.5)]
    assert predict(config).startswith('The memory of a step cannot be predicted: ValueError: the training pipeline')
    config = detector_config()
    config.optim_wrapper = dict(type='OptimWrapper')
    assert predict(config).startswith('The memory of a step cannot be predicted: ')
    assert predict(Config(dict(model=dict(backbone=dict(type='ResNet'))))) == ''


@pytest.mark.parametrize('name', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_one_rank_predicts(monkeypatch, name):
    config = detector_config()
    config.launcher = 'none'
    monkeypatch.setattr(running, 'predicted_peak', lambda config: 'a line')
    assert running.prepare(config) == (config, '')
    monkeypatch.setenv(name, '1')
    assert running.prepare(config, predict=True)[1] == 'a line'  # without a launcher the only one is the first
    config.launcher = 'a launcher'
    monkeypatch.setattr(running, 'start_processes', lambda config: None)
    assert running.prepare(config, predict=True) == (config, '')


class TestBadInput:
    def test_data_root_override(self):
        with pytest.raises(ValueError, match='COCO_ROOT'):
            shared.load_config(arguments('--cfg-options', 'data_root=x'))

    @pytest.mark.parametrize('made', ['', 'annotations/instances_train2017.json'])
    def test_missing_data(self, tmp_path, monkeypatch, made):
        monkeypatch.setenv('COCO_ROOT', str(tmp_path))
        if made:
            (tmp_path / made).parent.mkdir()
            (tmp_path / made).touch()
        expected = (
            r'train2017/ does not exist \(train_dataloader.dataset.data_prefix.img\)'
            if made
            else (
                r'instances_train2017.json does not exist \(train_dataloader.dataset.ann_file\).*COCO_ROOT.*data_root'
            )
        )
        with pytest.raises(FileNotFoundError, match=expected):
            check_data(Config.fromfile(CONFIG), 'train', 'val')

    def test_missing_data_inside_wrappers(self):
        inner = dict(type='CocoDataset', data_root='nowhere', ann_file='a.json')
        wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[inner]))
        config = Config(dict(train_dataloader=dict(dataset=wrapped)))
        with pytest.raises(FileNotFoundError, match='nowhere/a.json'):
            check_data(config, 'train')

    def test_the_way_out_names_the_variable_that_is_read(self, monkeypatch):
        config = Config.fromfile(CONFIG)
        config.train_dataloader.dataset.data_root = 'mine/'
        with pytest.raises(FileNotFoundError) as error:
            check_data(config, 'train')
        assert 'COCO_ROOT' not in str(error.value)
        assert 'or train_dataloader.dataset.ann_file in the config' in str(error.value)

    def test_amp_of_another_wrapper(self):
        config = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
        with pytest.raises(ValueError, match='optim_wrapper.type'):
            shared.enable_amp(config)

    def test_learning_rate_without_its_batch(self):
        with pytest.raises(ValueError, match='auto_scale_lr=dict'):
            shared.enable_auto_scale_lr(Config(dict()))

    def test_painting_without_the_hook(self):
        with pytest.raises(ValueError, match='default_hooks.visualization'):
            shared.enable_painting(Config(dict()), False, 'x', 0)

    def test_no_checkpoint(self):
        check_checkpoint_file(None, 'load_from')
        check_checkpoint_file('torchvision://resnet50', 'load_from')
        with pytest.raises(FileNotFoundError, match='load_from: there is no checkpoint none.pth'):
            check_checkpoint_file('none.pth', 'load_from')

    def test_a_file_that_is_no_checkpoint(self, tmp_path):
        path = tmp_path / 'a.pth'
        path.write_text('text')
        with pytest.raises(ValueError, match='a.pth is not a checkpoint that PyTorch can read'):
            read_checkpoint(path)
        torch.save([1], path)
        with pytest.raises(ValueError, match='a.pth is not a checkpoint: it holds a list'):
            read_checkpoint(path)

    def test_a_checkpoint_of_another_model(self, tmp_path):
        model, path = build(detector_config()), str(tmp_path / 'a.pth')
        plain = {name: v for name, v in model.state_dict().items() if 'auxiliary' not in name}
        torch.save(dict(state_dict=plain), path)
        check_fits(model, path)  # auxiliary networks are no part of it
        trunk = {name.removeprefix('backbone.'): v for name, v in plain.items() if name.startswith('backbone.')}
        torch.save(trunk, path)
        with pytest.raises(ValueError, match="holds no weights of the config's model: does it hold only a backbone"):
            check_fits(model, path)
        first = next(name for name in plain if name.startswith('neck.'))
        torch.save(dict(state_dict={name: v for name, v in plain.items() if name != first}), path)
        with pytest.raises(ValueError, match=f'it was trained with: it lacks 1 of the entries .{first}'):
            check_fits(model, path)
        plain[first] = plain[first][:1]
        torch.save(plain, path)
        with pytest.raises(ValueError, match=f'(?s)it was trained with: .*size mismatch for {first}'):
            check_fits(model, path)

    def test_output_of_a_detector(self):
        with pytest.raises(ValueError, match=r'\.pkl'):
            shared.enable_output(Config.fromfile(CONFIG), 'folder')


@pytest.mark.parametrize(
    ('dataset', 'message'),
    [
        (dict(type='ImageNet', split='train', data_root='nowhere/'), r'nowhere/ does not exist \(train_dataloader'),
        (dict(type='CustomDataset', data_prefix='train', data_root='.'), r'\./train does not exist .*\.data_prefix\)'),
        (dict(type='MosaicDataset', split='train', data_root='nowhere'), r'nowhere does not exist .*\.data_root\)'),
    ],
)
def test_a_classifiers_data_are_looked_for(dataset, message):
    with pytest.raises(FileNotFoundError, match=message):
        check_data(Config(dict(train_dataloader=dict(dataset=dataset))), 'train')


def test_data_that_are_downloaded_are_not_looked_for():
    check_data(Config(dict(train_dataloader=dict(dataset=dict(type='CIFAR10', data_root='nowhere')))), 'train')
