"""The tools on a few drawn scenes; a detector's in processes of their own."""

import json
import os
import pickle
import re
import sys
from pathlib import Path

import pytest
from in_process import command
from mmengine.config import Config
from processes import ROOT, execute, free_port

from manpp_mm.methods import method_of
from manpp_mm.publish import publish

SHORT = [
    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=1', 'train_dataloader.batch_size=2',
]  # fmt: skip


def run(folder: Path, *command: object, **environment: str) -> str:
    done = execute(*command, DEMO_ROOT=str(folder / 'data'), **environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def here(data, monkeypatch, capfd):
    """Runs a tool in this process; returns what it prints."""
    monkeypatch.setenv('DEMO_ROOT', str(data / 'data'))
    monkeypatch.chdir(ROOT)

    def run_here(tool: str, *argv: object) -> str:
        capfd.readouterr()
        command(tool, *argv)
        return ''.join(capfd.readouterr())

    return run_here


def scalars(folder: Path) -> list[dict]:
    lines = next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    run(folder, sys.executable, 'tools/make_demo_data.py', folder / 'data', '--train', 8, '--val', 4)
    return folder


def test_demo_data_is_deterministic_and_as_promised(data, tmp_path):
    run(tmp_path, sys.executable, 'tools/make_demo_data.py', tmp_path / 'data', '--train', 8, '--val', 4)
    files = sorted(p.relative_to(data) for p in (data / 'data').rglob('*') if p.is_file())
    assert len(files) == 2 + 3 * 12 + 2 * 5
    for file in files:
        assert (data / file).read_bytes() == (tmp_path / file).read_bytes(), file
    content = json.loads((data / 'data/annotations/instances_train2017.json').read_text())
    assert len(content['categories']) == 5
    counts = [sum(a['image_id'] == image['id'] for a in content['annotations']) for image in content['images']]
    assert all(1 <= n <= 8 for n in counts)


@pytest.mark.slow
def test_fit_train_resume_and_publish(here, tmp_path):
    """A plain config and one flag; what lies in the work folder goes on by itself."""
    work, config = tmp_path / 'work', tmp_path / 'plain.py'
    config.write_text(f"_base_ = '{Path('configs/demo_faster_rcnn_r18_end_to_end.py').absolute()}'")
    train = [config, '--method', 'exact', '--memory', '2GiB', '--work-dir', work]
    output = here('train', *train, '--cfg-options', *SHORT)
    assert re.search(
        r'Fitted to 2GiB: exact_early_loss, the least work of the ways of the method exact that fit\ncuts=', output
    )
    assert 'LocalResNet trains with exact gradients' in output
    written = Config.fromfile(work / 'plain.py')
    assert method_of(written) == written.manpp_plan.method == 'exact'
    again = [work / 'plain.py', '--resume', '--work-dir', work]
    here('train', *again, '--cfg-options', 'train_cfg.max_epochs=2')
    checkpoint = work / 'epoch_2.pth'
    assert publish(checkpoint, tmp_path / 'a.pth').is_file()
    for flags, message in [
        (('--amp',), 'mixed precision (--amp, '),
        (
            ('--resume', '--method', 'manpp'),
            "was trained with the method 'exact', and a resumed run continues as it began",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            here('train', config, '--work-dir', work, *flags)
        assert checkpoint.is_file()


@pytest.mark.slow
def test_train_resume_and_test_a_detector(data):
    work, config = data / 'work', 'configs/demo_faster_rcnn_r18_manpp.py'
    train = [sys.executable, 'tools/train.py', config, '--work-dir', work, '--auto-scale-lr', '--cfg-options', *SHORT]
    output = run(data, *train)
    assert 'LocalResNet trains block by block' in output
    assert 'A step on 2 images of 256x320 in float32 is predicted to peak at' in output
    steps = [line for line in scalars(work) if 'loss' in line]
    assert len(steps) == 4
    terms = [v for k, v in steps[0].items() if 'loss' in k and k != 'loss']
    assert steps[0]['loss'] == pytest.approx(sum(terms), rel=1e-4)
    assert {'block0.loss_cls'} <= set(steps[0])
    train[train.index('train_cfg.max_epochs=1')] = 'train_cfg.max_epochs=2'
    output = run(data, *train, '--resume')
    assert 'resumed epoch: 1, iter: 4' in output
    assert 'copied from the trunk' not in output
    checkpoint = work / 'epoch_2.pth'
    painted = data / 'painted'
    test = [sys.executable, 'tools/test.py', config, checkpoint, '--work-dir', data / 'test']
    output = run(data, *test, '--out', data / 'out.pkl', '--show-dir', painted)
    assert 'bbox_mAP' in output
    assert len(list((data / 'test').glob('*/*painted/*.jpg')) + list(painted.rglob('*.jpg'))) == 4
    assert len(pickle.loads((data / 'out.pkl').read_bytes())) == 4
    assert 'bbox_mAP' in run(data, *test, '--tta')


@pytest.mark.slow
def test_two_processes_on_a_cpu(data):
    config, work = 'configs/demo_faster_rcnn_r18_manpp.py', data / 'distributed'
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    run(
        data, 'tools/dist_train.sh', config, 2, '--work-dir', work, '--cfg-options', *SHORT, PATH=path, PORT=free_port()
    )
    assert len([line for line in scalars(work) if 'loss' in line]) == 2
    output = run(
        data, 'tools/dist_test.sh', config, work / 'epoch_1.pth', 2, '--work-dir', work, PATH=path, PORT=free_port()
    )
    assert 'bbox_mAP' in output


@pytest.mark.slow
def test_train_and_test_a_segmentor(data, here):
    config, work = 'configs/demo_deeplabv3_r18_manpp.py', data / 'segmentation'
    options = ['train_cfg.max_iters=4', 'train_cfg.val_interval=4', 'default_hooks.logger.interval=1',
               'default_hooks.checkpoint.interval=2', 'train_dataloader.batch_size=2']  # fmt: skip
    here('train', config, '--work-dir', work, '--cfg-options', *options)
    steps = [line for line in scalars(work) if 'loss' in line]
    assert steps[0]['loss'] == pytest.approx(
        sum(v for k, v in steps[0].items() if 'loss' in k and k != 'loss'), rel=1e-4
    )
    assert {'block0.loss_ce', 'block0.acc_seg'} <= set(steps[0])
    output = here(
        'train', config, '--work-dir', work, '--resume', '--cfg-options', 'train_cfg.max_iters=6', *options[1:]
    )
    assert 'resumed epoch: 0, iter: 4' in output
    test = [config, work / 'iter_6.pth', '--work-dir', data / 'test']
    output = here('test', *test, '--out', data / 'maps', '--show-dir', data / 'painted')
    assert 'mIoU' in output
    assert len(list((data / 'maps').glob('*.png'))) == 4
    assert len(list((data / 'painted').rglob('*.png'))) == 4
    assert 'mIoU' in here('test', *test, '--tta')


@pytest.mark.slow
def test_train_and_test_a_classifier(data, here):
    pytest.importorskip('mmpretrain')
    config, work = 'configs/demo_resnet14_manpp.py', data / 'classification'
    here('train', config, '--work-dir', work, '--cfg-options', *SHORT[:4])
    steps = [line for line in scalars(work) if 'loss' in line]
    assert {'block0.loss', 'block1.loss', 'block2.loss'} <= set(steps[0])
    test = [config, work / 'epoch_1.pth', '--work-dir', data / 'test']
    output = here('test', *test, '--out', data / 'classes.pkl', '--show-dir', data / 'painted_classes')
    plain = float(re.search(r'accuracy/top1: ([\d.]+)', output)[1])
    assert 0 <= plain <= 100
    found = pickle.loads((data / 'classes.pkl').read_bytes())
    assert len(found) == len(list((data / 'painted_classes').glob('*.png'))) == 5 * 20  # whole rows of a mosaic
    correct = sum(int(each['pred_label']) == int(each['gt_label']) for each in found)
    assert plain == pytest.approx(100 * correct / len(found), abs=0.01)
    assert 'accuracy/top1' in here('test', *test, '--tta')
    published = publish(work / 'epoch_1.pth', data / 'resnet14.pth')
    image = next((data / 'data/val2017').glob('*.jpg'))
    output = here('image_demo', image, published, '--out-dir', data / 'found')
    assert re.match(rf'{image.name}: \w+ \d+%, ', output.strip().splitlines()[-1])
