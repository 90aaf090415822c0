"""MMLab's inferencers on our configs and checkpoints, with and without the local backbone, and the demo tool."""

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import build, detector_config, upstream
from mmengine.config import Config
from processes import execute
from pycocotools.mask import decode
from runners import classification_runner_config, coco_runner_config, segmentation_runner_config
from test_publish import trained

from manpp_mm.inference import predict
from manpp_mm.publish import publish


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    root = tmp_path_factory.mktemp('detector')
    return root, trained(root, coco_runner_config)[1]


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    root = tmp_path_factory.mktemp('segmentor')
    return root, trained(root, segmentation_runner_config)[1]


def test_detector(detector, tmp_path):
    root, checkpoint = detector
    (tmp_path / 'notes.txt').write_text('not an image')
    for index in range(3):
        shutil.copy(root / f'val2017/{index}.png', tmp_path)
    plain = publish(checkpoint, tmp_path / 'model.pth')
    found = {}
    for name, weights in (('local', checkpoint), ('plain', plain)):
        out = tmp_path / name
        yielded = list(predict(tmp_path, weights, out, score_threshold=0.2, device='cpu'))
        assert [image.name for image, _ in yielded] == ['0.png', '1.png', '2.png']
        found[name] = json.loads((out / 'predictions.json').read_text())
        assert {image.name: boxes for image, boxes in yielded} == found[name]
        assert not np.array_equal(cv2.imread(str(out / 'vis/1.png')), cv2.imread(str(tmp_path / '1.png')))
    assert found['local'] == found['plain']
    flat = np.full((64, 64, 3), (10, 60, 200), np.uint8)  # each colour in its own channel
    image = tmp_path / 'flat.png'
    cv2.imwrite(str(image), flat)
    assert list(predict(image, plain, tmp_path / 'none', score_threshold=1.0)) == [(image, [])]
    assert np.abs(cv2.imread(str(tmp_path / 'none/vis/flat.png')).astype(int) - flat).mean() < 5
    boxes = [box for image in found['plain'].values() for box in image]
    assert boxes
    assert all(box['label'] in 'abc' and 0.2 <= box['score'] <= 1 for box in boxes)
    assert all(0 <= x1 <= x2 <= 64 and 0 <= y1 <= y2 <= 64 for x1, y1, x2, y2 in (box['bbox'] for box in boxes))


def test_masks(tmp_path):
    config = detector_config()
    mask = upstream('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    roi_head = mask.model.roi_head
    roi_head.mask_roi_extractor.out_channels = 16
    roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=3)
    roi_head.update({key: config.model.roi_head[key] for key in ('bbox_head', 'bbox_roi_extractor')})
    config.model.update(type='MaskRCNN', roi_head=roi_head)
    config.model.test_cfg.rcnn.mask_thr_binary = 0.5
    meta = dict(cfg=config.pretty_text, dataset_meta=dict(classes=tuple('abc'), palette=[(9, 9, 9)] * 3))
    torch.save(dict(meta=meta, state_dict=build(config).state_dict()), tmp_path / 'mask.pth')
    cv2.imwrite(str(tmp_path / 'a.jpg'), np.full((64, 64, 3), 99, np.uint8))
    keys = dict(device='cpu', score_threshold=0.0)
    ((_, boxes),) = predict(tmp_path / 'a.jpg', tmp_path / 'mask.pth', tmp_path / 'out', **keys)
    assert boxes
    assert json.loads((tmp_path / 'out/predictions.json').read_text()) == {'a.jpg': boxes}
    masks = [decode(box['mask']) for box in boxes]
    assert all(mask.shape == (64, 64) for mask in masks)
    assert sum(mask.sum() for mask in masks) > 0


def test_segmentor(segmentor, tmp_path):
    root, checkpoint = segmentor
    plain = publish(checkpoint, tmp_path / 'model.pth')
    found = {}
    for name, weights in (('local', checkpoint), ('plain', plain)):
        shares = dict(predict(root / 'images', weights, tmp_path / name, device='cpu'))
        found[name] = {image.name: value for image, value in shares.items()}
        assert json.loads((tmp_path / name / 'predictions.json').read_text()) == found[name]
        labels = cv2.imread(str(tmp_path / name / 'label_maps/2.png'), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (64, 64)
        counts = np.bincount(labels.ravel(), minlength=4) / labels.size
        assert found[name]['2.jpg'] == {c: n for c, n in zip('abcd', counts, strict=True) if n}
        assert cv2.imread(str(tmp_path / name / 'vis/2.jpg')).shape == (64, 64, 3)
    assert found['local'] == found['plain']


@pytest.mark.parametrize('to_rgb', [True, False])
def test_classifier(tmp_path, to_rgb):
    """An image of a file is BGR, one of a data set in memory RGB; `to_rgb` turns either."""
    pytest.importorskip('mmpretrain')

    def make(root: Path, validate: bool) -> Config:
        config = classification_runner_config(root, validate=validate)
        config.data_preprocessor.to_rgb = config.model.data_preprocessor.to_rgb = to_rgb
        return config

    local, checkpoint = trained(tmp_path, make)
    plain = publish(checkpoint, tmp_path / 'model.pth')
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    found = {}
    for name, weights in (('local', checkpoint), ('plain', plain)):
        ((_, found[name]),) = predict(tmp_path / 'a.png', weights, tmp_path / name, device='cpu')
        assert json.loads((tmp_path / name / 'predictions.json').read_text()) == {'a.png': found[name]}
        assert (tmp_path / name / 'vis/a.png').is_file()
    assert found['local'] == found['plain']
    turned = pixels if to_rgb else pixels[..., ::-1]  # mosaics are RGB, and to_rgb turns them
    rgb = torch.from_numpy(turned.copy()).permute(2, 0, 1)[None].float()
    preprocessor = local.data_preprocessor
    with torch.no_grad():
        scores = local.eval().head(local.extract_feat((rgb - preprocessor.mean) / preprocessor.std)).softmax(1)[0]
    assert [each['label'] for each in found['plain']] == ['abcd'[index] for index in scores.argsort(descending=True)]
    assert [each['score'] for each in found['plain']] == pytest.approx(
        scores.sort(descending=True)[0].tolist(), abs=1e-4
    )


def test_bad_input(segmentor, tmp_path):
    root, checkpoint = segmentor

    def refused(message, inputs=root / 'images', weights=checkpoint, **keys):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            list(predict(inputs, weights, tmp_path / 'out', **keys))

    (tmp_path / 'empty').mkdir()
    refused('empty has no images', tmp_path / 'empty')
    refused('there is no image or folder', tmp_path / 'nowhere')
    refused('there is no checkpoint', weights=tmp_path / 'none.pth')
    refused('there is no config', config=tmp_path / 'none.py')
    refused(r'--score-threshold 30 must be in \[0, 1\]', score_threshold=30)
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    refused('weights.pth holds no config: set it with --config', weights=tmp_path / 'weights.pth')
    if not torch.cuda.is_available():
        refused('--device cuda: there is no GPU', device='cuda')
    (tmp_path / 'out').mkdir()
    shutil.copytree(root / 'images', tmp_path / 'out/vis')
    refused('would overwrite the images in', tmp_path / 'out/vis')
    shutil.rmtree(tmp_path / 'out')
    other = Config.fromstring(torch.load(checkpoint, weights_only=False)['meta']['cfg'], '.py')
    other.model.backbone.cuts = [(1, 1)]
    other.dump(tmp_path / 'other.py')
    refused('does not fit the config: the checkpoint was trained with other cuts', config=tmp_path / 'other.py')
    assert not (tmp_path / 'out').exists()
    two = tmp_path / 'two'
    shutil.copytree(root / 'images', two)
    shutil.copy(two / '0.jpg', two / '0.png')
    refused('0.(png|jpg) and 0.(png|jpg) would share one label map', two)
    (two / '0.png').unlink()
    for content in (b'no image', b''):
        (two / '1.jpg').write_bytes(content)
        refused('OpenCV cannot read 1 of 4 images: .*two/1.jpg', two)
        # What follows is predicted all the same.
        assert json.loads((tmp_path / 'out/predictions.json').read_text()).keys() == {'0.jpg', '2.jpg', '3.jpg'}


@pytest.mark.parametrize('task', ['detector', 'segmentor'])
def test_bare_weights_take_the_classes_of_the_config(task, request, tmp_path):
    root, checkpoint = request.getfixturevalue(task)
    images = root / ('val2017' if task == 'detector' else 'images')
    found = torch.load(checkpoint, weights_only=False)
    torch.save(found['state_dict'], tmp_path / 'weights.pth')
    (tmp_path / 'config.py').write_text(found['meta']['cfg'])
    keys = dict(config=tmp_path / 'config.py', device='cpu', score_threshold=0.2)
    bare = dict(predict(images, tmp_path / 'weights.pth', tmp_path / 'a', **keys))
    assert bare == dict(predict(images, checkpoint, tmp_path / 'b', **keys))


@pytest.mark.slow
def test_the_tool(segmentor, tmp_path):
    root, checkpoint = segmentor
    image = Path(root / 'images/0.jpg')
    done = execute(sys.executable, 'tools/image_demo.py', image, checkpoint, '--out-dir', tmp_path / 'out')
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith('0.jpg: ') or '\n0.jpg: ' in done.stdout
    assert (tmp_path / 'out/vis/0.jpg').is_file()
    done = execute(sys.executable, 'tools/image_demo.py', tmp_path / 'none', checkpoint)
    assert done.returncode == 1
    assert f'error: there is no image or folder {tmp_path / "none"}' in done.stderr
