"""docs/your_data.md as it is written, on a few small images."""

import json
import re
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from documents import ROOT, commands, configs
from in_process import command
from runners import write_coco, write_label_maps

TEXT = (ROOT / 'docs/your_data.md').read_text()
DETECTOR, SEGMENTOR, CLASSIFIER = configs(TEXT)
QUICK = [
    'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a documented command in the folder of the data; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def command_of(words: list[str]) -> str:
        capfd.readouterr()
        command(Path(words[1]).stem, *words[2:])
        return ''.join(capfd.readouterr())

    return command_of


def of(name: str) -> list[list[str]]:
    """The commands of one of the parts."""
    return [words for words in commands(TEXT) if words[0] == 'python' and f'work_dirs/{name}' in ' '.join(words)]


@pytest.mark.slow
def test_a_detector_as_written(tmp_path, run):
    root = tmp_path / 'data/cells'
    write_coco(root)
    for split in ('train', 'val'):
        (root / f'{split}2017').rename(root / split)
        path = root / f'annotations/instances_{split}2017.json'
        content = path.read_text()
        for old, new in zip('abc', ('RBC', 'WBC', 'Platelets'), strict=True):
            content = content.replace(f'"name": "{old}"', f'"name": "{new}"')
        path.with_name(f'instances_{split}.json').write_text(content)
        path.unlink()
    (root / 'detector.py').write_text(DETECTOR)
    check, first, small, test, publish, demo = of('cells')
    assert [Path(words[1]).name for words in (check, first, small, test, publish, demo)] == [
        'check_data.py', 'train.py', 'train.py', 'test.py', 'publish_model.py', 'image_demo.py'
    ]  # fmt: skip
    output = run(check)
    assert 'train_dataloader.dataset: 4 of 4 images, 4 of 4 boxes are used' in output
    assert len(list((tmp_path / 'work_dirs/cells/checked').glob('*.jpg'))) == 4
    quick = [*QUICK, 'model.backbone.init_cfg=None']
    scale = ['train_dataloader.dataset.pipeline.2.scale=(64,64)', 'val_dataloader.dataset.pipeline.1.scale=(64,64)']
    output = run([*first, '--cfg-options', *quick, *scale, 'train_cfg.max_epochs=1'])
    assert re.search(r'coco/bbox_mAP: \d', output)
    assert 'is predicted to peak at' in output
    run([*small, *quick])
    assert re.search(r'coco/bbox_mAP: \d', run(test))
    published = Path(run(publish).strip().splitlines()[-1])
    assert published.name.startswith('cells-')
    run(demo)
    found = json.loads((tmp_path / 'work_dirs/cells/found/predictions.json').read_text())
    assert found.keys() == {f'{index}.png' for index in range(4)}
    assert len(list((tmp_path / 'work_dirs/cells').rglob('painted/*.png'))) == 4


@pytest.mark.slow
def test_a_segmentor_as_written(tmp_path, run):
    root = tmp_path / 'data/scenes'
    write_label_maps(root, size=96)
    for folder in ('images', 'labels'):
        (root / folder / 'train').mkdir()
        for path in list((root / folder).glob('*.*')):
            path.rename(root / folder / 'train' / path.name)
        (root / folder / 'val').symlink_to(root / folder / 'train')
    # A quarter of the pixels and a ResNet-18: the config is the page's.
    (root / 'segmentor.py').write_text(SEGMENTOR.replace('crop = (256, 320)', 'crop = (64, 96)'))
    shallow = ['model.backbone.depth=18', 'model.backbone.cuts=[(1,0),(2,0)]', 'model.decode_head.in_channels=512']
    train, test, publish, demo = ([word.replace('4000', '2') for word in words] for words in of('scenes'))
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
    output = run([*train, '--cfg-options', *QUICK, *short, *shallow, 'model.pretrained=None'])
    assert re.search(r'mIoU: \d', output)
    assert re.search(r'mIoU: \d', run([*test, '--cfg-options', *shallow]))
    assert Path(run(publish).strip().splitlines()[-1]).name.startswith('scenes-')
    run(demo)
    assert len(list((tmp_path / 'work_dirs/scenes/found/label_maps').glob('*.png'))) == 4


@pytest.mark.slow
def test_a_classifier_as_written(tmp_path, run):
    pytest.importorskip('mmpretrain')
    root, generator = tmp_path / 'data/flowers', np.random.default_rng(0)
    for split, name, index in product(('train', 'val'), ('rose', 'tulip', 'daisy'), range(2)):
        (root / split / name).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 255, (64, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(root / split / name / f'{index}.jpg'), pixels)
    (root / 'classifier.py').write_text(CLASSIFIER)
    train, test, publish, demo = ([word.replace('100', '1') for word in words] for words in of('flowers'))
    short = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.pipeline.1.scale=64']
    small = [f'{split}_dataloader.dataset.pipeline.2.crop_size=64' for split in ('val', 'test')]
    output = run([*train, '--cfg-options', *QUICK, *short, *small])
    assert 'Fitted: manpp' in output and 'LocalResNet trains block by block' in output
    assert re.search(r'accuracy/top1: \d', output)
    assert re.search(r'accuracy/top1: \d', run([*test, '--cfg-options', *QUICK, *small]))
    assert len(list((tmp_path / 'work_dirs/flowers/painted').glob('*.jpg_*.png'))) > 0
    assert Path(run(publish).strip().splitlines()[-1]).name.startswith('flowers-')
    run(demo)
    found = json.loads((tmp_path / 'work_dirs/flowers/found/predictions.json').read_text())
    assert found.keys() == {'0.jpg', '1.jpg'}
    assert all({each['label'] for each in scores} == {'rose', 'tulip', 'daisy'} for scores in found.values())
