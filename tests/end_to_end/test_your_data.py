"""docs/your_data.md as it is written, on a few small images."""

import json
import os
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from documents import ROOT, commands, configs
from runners import write_coco, write_label_maps

TEXT = (ROOT / 'docs/your_data.md').read_text()
DETECTOR, SEGMENTOR, CLASSIFIER = configs(TEXT)
QUICK = [
    'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
]  # fmt: skip


def run(folder: Path, words: list[str]) -> str:
    tool = ROOT / words[1]
    own = dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    done = subprocess.run(
        [sys.executable, tool, *words[2:]], cwd=folder, env=os.environ | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def of(name: str) -> list[list[str]]:
    """The commands of one of the parts."""
    return [words for words in commands(TEXT) if words[0] == 'python' and f'work_dirs/{name}' in ' '.join(words)]


@pytest.mark.slow
def test_a_detector_as_written(tmp_path):
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
    output = run(tmp_path, check)
    assert 'train_dataloader.dataset: 4 of 4 images, 4 of 4 boxes are used' in output
    assert len(list((tmp_path / 'work_dirs/cells/checked').glob('*.jpg'))) == 4
    quick = [*QUICK, 'model.backbone.init_cfg=None']
    scale = ['train_dataloader.dataset.pipeline.2.scale=(64,64)', 'val_dataloader.dataset.pipeline.1.scale=(64,64)']
    output = run(tmp_path, [*first, '--cfg-options', *quick, *scale, 'train_cfg.max_epochs=1'])
    assert re.search(r'coco/bbox_mAP: \d', output)
    assert 'is predicted to peak at' in output
    run(tmp_path, [*small, *quick])
    assert re.search(r'coco/bbox_mAP: \d', run(tmp_path, test))
    published = Path(run(tmp_path, publish).strip().splitlines()[-1])
    assert published.name.startswith('cells-')
    run(tmp_path, demo)
    found = json.loads((tmp_path / 'work_dirs/cells/found/predictions.json').read_text())
    assert found.keys() == {f'{index}.png' for index in range(4)}
    assert len(list((tmp_path / 'work_dirs/cells').rglob('painted/*.png'))) == 4


@pytest.mark.slow
def test_a_segmentor_as_written(tmp_path):
    root = tmp_path / 'data/scenes'
    write_label_maps(root, size=320)
    for folder in ('images', 'labels'):
        (root / folder / 'train').mkdir()
        for path in list((root / folder).glob('*.*')):
            path.rename(root / folder / 'train' / path.name)
        (root / folder / 'val').symlink_to(root / folder / 'train')
    (root / 'segmentor.py').write_text(SEGMENTOR)
    train, test, publish, demo = ([word.replace('4000', '2') for word in words] for words in of('scenes'))
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
    output = run(tmp_path, [*train, '--cfg-options', *QUICK, *short, 'model.pretrained=None'])
    assert re.search(r'mIoU: \d', output)
    assert re.search(r'mIoU: \d', run(tmp_path, test))
    assert Path(run(tmp_path, publish).strip().splitlines()[-1]).name.startswith('scenes-')
    run(tmp_path, demo)
    assert len(list((tmp_path / 'work_dirs/scenes/found/label_maps').glob('*.png'))) == 4


@pytest.mark.slow
def test_a_classifier_as_written(tmp_path):
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
    output = run(tmp_path, [*train, '--cfg-options', *QUICK, *short, *small])
    assert 'Fitted: manpp' in output and 'LocalResNet trains block by block' in output
    assert re.search(r'accuracy/top1: \d', output)
    assert re.search(r'accuracy/top1: \d', run(tmp_path, [*test, '--cfg-options', *QUICK, *small]))
    assert len(list((tmp_path / 'work_dirs/flowers/painted').glob('*.jpg_*.png'))) > 0
    assert Path(run(tmp_path, publish).strip().splitlines()[-1]).name.startswith('flowers-')
    run(tmp_path, demo)
    found = json.loads((tmp_path / 'work_dirs/flowers/found/predictions.json').read_text())
    assert found.keys() == {'0.jpg', '1.jpg'}
    assert all({each['label'] for each in scores} == {'rose', 'tulip', 'daisy'} for scores in found.values())
