"""What MMSegmentation's loaders do with bad input, and what is checked before."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import build, segmentor_config
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from manpp_mm.checks import files as check_files
from manpp_mm.checks.files import check_crop, check_data

CONFIG = Path(__file__).parents[2] / 'configs' / 'deeplabv3_r50_manpp_cityscapes.py'


def write_cityscapes(root: Path, label: np.ndarray, image: tuple[int, int] = (40, 48)) -> None:
    for split in ('train', 'val'):
        for folder in ('leftImg8bit', 'gtFine'):
            (root / folder / split / 'a').mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 255, (*image, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f'leftImg8bit/{split}/a/x_leftImg8bit.png'), pixels)
        cv2.imwrite(str(root / f'gtFine/{split}/a/x_gtFine_labelTrainIds.png'), label)


def cityscapes(root: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv('CITYSCAPES_ROOT', str(root))
    config = Config.fromfile(CONFIG)
    for transform in config.train_dataloader.dataset.pipeline:
        if transform.type == 'RandomResize':
            transform.update(scale=(48, 40), ratio_range=(1.0, 1.0))
        if transform.type == 'RandomCrop':
            transform.crop_size = (64, 64)
    return config


def load(config: Config) -> dict:
    init_default_scope('mmseg')
    return DATASETS.build(config.train_dataloader.dataset)[0]


def test_a_crop_larger_than_the_image_is_padded_and_the_padding_ignored(tmp_path, monkeypatch):
    write_cityscapes(tmp_path, np.ones((40, 48), np.uint8))
    sample = load(cityscapes(tmp_path, monkeypatch))
    assert sample['inputs'].shape == (3, 40, 48)
    model = build(segmentor_config())
    batch = model.data_preprocessor(
        dict(inputs=[sample['inputs']] * 2, data_samples=[sample['data_samples']] * 2), True
    )
    assert batch['inputs'].shape == (2, 3, 64, 64)
    labels = batch['data_samples'][0].gt_sem_seg.data
    assert (labels[:, 40:] == 255).all()
    assert (labels[:, :, 48:] == 255).all()
    loss, log = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss)
    assert 'block2.loss_ce' in log


@pytest.mark.parametrize('value', [19, 200])
def test_a_label_outside_the_class_range(tmp_path, monkeypatch, value):
    label = np.zeros((40, 48), np.uint8)
    label[3, 3], label[4, 4] = value, 255
    write_cityscapes(tmp_path, label)
    with pytest.raises(ValueError, match=rf'x_gtFine_labelTrainIds.png holds the labels \[{value}\], but there are 19'):
        load(cityscapes(tmp_path, monkeypatch))


def test_a_label_map_of_another_size(tmp_path, monkeypatch):
    write_cityscapes(tmp_path, np.zeros((80, 96), np.uint8))
    with pytest.raises(ValueError, match=r'labelTrainIds.png is 80x96 .* is 40x48'):
        load(cityscapes(tmp_path, monkeypatch))


def test_folders_that_are_missing_or_empty(tmp_path, monkeypatch):
    config = cityscapes(tmp_path, monkeypatch)
    with pytest.raises(FileNotFoundError, match=r'leftImg8bit/train does not exist.*CITYSCAPES_ROOT'):
        check_data(config, 'train')
    write_cityscapes(tmp_path, np.zeros((40, 48), np.uint8))
    check_data(config, 'train', 'val', 'test')
    (tmp_path / 'gtFine/train/a/x_gtFine_labelTrainIds.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'gtFine/train has no file \*_gtFine_labelTrainIds.png'):
        check_data(config, 'train')


def test_an_image_without_its_label_map_is_named(tmp_path, monkeypatch):
    write_cityscapes(tmp_path, np.zeros((40, 48), np.uint8))
    (tmp_path / 'gtFine/train/a/x_gtFine_labelTrainIds.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'x_gtFine_labelTrainIds\.png'):
        load(cityscapes(tmp_path, monkeypatch))


def test_a_crop_that_differs_from_the_padding_is_warned_of(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(check_files, 'print_log', lambda message, **_: said.append(message))
    config = cityscapes(tmp_path, monkeypatch)
    check_crop(config)
    assert len(said) == 1
    assert 'model.data_preprocessor.size=(512, 1024)' in said[0]
    config.model.data_preprocessor.size = (64, 64)
    check_crop(config)
    assert len(said) == 1
