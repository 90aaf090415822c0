"""Classes, evaluators, keys and schedules of a config."""

import json
import shutil

import pytest
import torch
from helpers import classifier_config, detector_config, segmentor_config, upstream
from mmengine.config import Config
from runners import coco_runner_config, renamed, runner, segmentation_runner_config

from manpp_mm.checkpoint_file import check_load_from
from manpp_mm.checks import check_everything, check_resume
from manpp_mm.checks.classes import check_head_classes, head_classes
from manpp_mm.checks.config_keys import check_options
from manpp_mm.checks.evaluators import check_save_best
from manpp_mm.checks.everything import classes_of
from manpp_mm.checks.loaders import check_shared_memory
from manpp_mm.checks.schedule import check_schedule
from manpp_mm.checks.weights import cached_file, check_weights, not_fetched
from manpp_mm.registered import named_class


@pytest.mark.parametrize('number', [2, 80])
def test_every_heads_classes(tmp_path, number):
    config = coco_runner_config(tmp_path)
    config.model.roi_head.bbox_head.num_classes = number
    message = rf'model.roi_head.bbox_head.num_classes={number}, but train_dataloader.dataset has 3 classes: a, b, c'
    with pytest.raises(ValueError, match=message):
        check_everything(config, 'train')


@pytest.mark.parametrize('number', [3, 19])
def test_a_segmentors_classes(tmp_path, number):
    config = segmentation_runner_config(tmp_path)
    config.model.decode_head.num_classes = number
    with pytest.raises(ValueError, match=rf'model.decode_head.num_classes={number}, but .* has 4 classes'):
        check_everything(config, 'train')


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', {80}),
        ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', {80}),
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', {80}),
        ('mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py', {19}),
        ('mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py', {19}),
    ],
)
def test_heads_of_upstream_models(name, expected):
    found = dict(head_classes(upstream(name).model))
    assert found
    assert set(found.values()) == expected


@pytest.mark.parametrize(
    'name',
    [
        'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py',
        'mmdet::bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot17halftrain_test-mot17halfval.py',
        'mmdet::grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py',
    ],
)
def test_heads_that_have_classes_of_their_own(name):
    check_head_classes(upstream(name).model, tuple(map(str, range(19))), 'key')


def test_splits_of_other_classes(tmp_path):
    config = coco_runner_config(tmp_path, validate=True)
    path = tmp_path / 'annotations/instances_val2017.json'
    content = json.loads(path.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    config.val_dataloader.dataset.metainfo.classes = ('c', 'b', 'a')
    check_everything(config, 'val')
    with pytest.raises(ValueError, match='val_dataloader.dataset has the classes c, b, a, but train_dataloader.datas'):
        check_everything(config, 'train', 'val')


def test_a_classifiers_folders(tmp_path):
    pytest.importorskip('mmpretrain')
    config = classifier_config()
    for split, names in (('train', 'abcd'), ('val', 'abd')):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
        folder = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix=split, pipeline=[])
        config[f'{split}_dataloader'].dataset = folder
    check_everything(config, 'train')
    with pytest.raises(
        ValueError, match='model.head.num_classes=4, .*but val_dataloader.dataset has 3 classes: a, b, d'
    ):
        check_everything(config, 'train', 'val')
    (tmp_path / 'val/e').mkdir()
    with pytest.raises(ValueError, match='has the classes a, b, d, e, but train_dataloader.dataset has a, b, c, d'):
        check_everything(config, 'train', 'val')


def test_classes_that_a_classifiers_files_say():
    pytest.importorskip('mmpretrain')
    dataset = dict(type='ImageNet', ann_file='a.txt')
    kind = named_class('ImageNet', 'dataset', 'mmpretrain')
    assert classes_of(dataset, kind, 'key') is None
    assert classes_of(dataset | dict(classes=['a', 'b']), kind, 'key') == ('a', 'b')
    assert len(classes_of(dict(type='ImageNet'), kind, 'key')) == 1000


def test_one_class_needs_its_comma(tmp_path):
    config = coco_runner_config(tmp_path)
    config.train_dataloader.dataset.metainfo = dict(classes='disc')
    with pytest.raises(ValueError, match=r"classes='disc' is a string, but not a file: .*with a comma, \('disc',\)"):
        check_everything(config, 'train')


def test_an_evaluator_of_another_file(tmp_path):
    config = coco_runner_config(tmp_path, validate=True)
    copy = tmp_path / 'annotations/copy.json'
    shutil.copy(tmp_path / 'annotations/instances_val2017.json', copy)
    config.val_evaluator.ann_file = str(copy)
    check_everything(config, 'val')  # the same images
    content = json.loads(copy.read_text())
    content['images'].pop()
    content['annotations'].pop()
    copy.write_text(json.dumps(content))
    message = r'val_evaluator.ann_file is .*copy.json, but val_dataloader.dataset reads .*which has other images'
    with pytest.raises(ValueError, match=message):
        check_everything(config, 'val')
    config.val_evaluator.ann_file = str(tmp_path / 'none.json')
    with pytest.raises(FileNotFoundError, match='none.json does not exist .val_evaluator.ann_file.'):
        check_everything(config, 'val')


@pytest.mark.parametrize(
    ('make', 'wrong', 'right'),
    [
        (detector_config, 'bbox_mAP', 'coco/bbox_mAP'),
        (segmentor_config, 'miou', 'mIoU'),
        (classifier_config, 'top1', 'accuracy/top1'),
    ],
)
def test_save_best(make, wrong, right):
    if make is classifier_config:
        pytest.importorskip('mmpretrain')
    config = make()
    config.default_hooks.checkpoint.save_best = wrong
    with pytest.raises(
        ValueError, match=f"save_best='{wrong}': the validation gives no such metric; it gives .*{right}"
    ):
        check_save_best(config)
    for name in (right, 'auto', [right]):
        config.default_hooks.checkpoint.save_best = name
        assert check_save_best(config) == []
    config.val_evaluator = dict(type='MultiDatasetsEvaluator', metrics=[config.val_evaluator], dataset_prefixes=['a'])
    config.default_hooks.checkpoint.save_best = f'a/{right}'
    assert check_save_best(config) == []
    config.val_dataloader = None
    assert 'has no effect: there is no validation' in check_save_best(config)[0]


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('max_epochs', 'train_cfg.max_epochs'),
        ('batch_size', 'train_dataloader.batch_size'),
        ('lr', 'optim_wrapper.optimizer.lr'),
        ('num_classes', 'model.roi_head.bbox_head.num_classes'),
        ('train_dataloder', 'train_dataloader'),
    ],
)
def test_top_level_keys_that_nothing_reads(key, meant):
    config = detector_config()
    message = rf"--cfg-options {key}=...: nothing reads the top-level key '{key}'; did you mean .*{meant}"
    with pytest.raises(ValueError, match=message):
        check_options(config, {key: 1})
    check_options(config, {meant: 1, 'load_from': 'a.pth', 'env_cfg.cudnn_benchmark': True, 'tta_model': {}})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A config whose training was cut after its first epoch, and the checkpoint."""
    config = coco_runner_config(tmp_path_factory.mktemp('trained'))
    config.param_scheduler = [
        dict(type='MultiStepLR', milestones=[1], by_epoch=True),
        dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    ]
    config.optim_wrapper.optimizer = dict(type='AdamW', lr=1e-3, betas=(0.9, 0.99))
    config.optim_wrapper.paramwise_cfg = dict(custom_keys={'backbone.auxiliary': dict(lr_mult=0.5)})
    config.train_cfg.max_epochs = 1
    runner(renamed(config)).train()
    return config, f'{config.work_dir}/epoch_1.pth'


class TestResume:
    def test_what_is_alike_goes_on(self, trained):
        config, checkpoint = trained
        longer = Config(config.to_dict())
        longer.train_cfg.max_epochs = 5
        assert check_resume(longer, checkpoint) == []

    @pytest.mark.parametrize(
        ('key', 'value', 'message'),
        [
            ('param_scheduler.0.milestones', [3], 'another param_scheduler, and a resumed run keeps the old one'),
            ('optim_wrapper.optimizer.lr', 0.5, r'another optim_wrapper.optimizer, .*load_from='),
            ('optim_wrapper.paramwise_cfg.norm_decay_mult', 0.0, 'another optim_wrapper.paramwise_cfg'),
            ('model.roi_head.bbox_head.num_classes', 7, r'bbox_head.num_classes=3 \(now 7\)'),
        ],
    )
    def test_what_cannot_change(self, trained, key, value, message):
        config, checkpoint = trained
        changed = Config(config.to_dict())
        changed.merge_from_dict({key: value})
        with pytest.raises(ValueError, match=f'--resume: .*epoch_1.pth was trained with .*{message}'):
            check_resume(changed, checkpoint)

    def test_another_batch_size(self, trained, tmp_path):
        config, checkpoint = trained
        changed = Config(config.to_dict())
        changed.train_dataloader.batch_size = 1
        (warning,) = check_resume(changed, checkpoint)
        assert 'train_dataloader.batch_size=2, the config has 1' in warning

    def test_a_published_file(self, trained, tmp_path):
        config, checkpoint = trained
        weights = torch.load(checkpoint, weights_only=False)
        torch.save(dict(state_dict=weights['state_dict'], meta={}), tmp_path / 'published.pth')
        message = 'published.pth holds only weights, .*--cfg-options load_from='
        with pytest.raises(ValueError, match=message):
            check_resume(config, str(tmp_path / 'published.pth'))


class TestWeights:
    def test_a_damaged_file_in_the_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        config = detector_config()
        config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
        kept = cached_file('torchvision://resnet18')
        assert kept.startswith(f'{tmp_path}/hub/checkpoints/resnet18-')
        check_weights(config)
        assert not_fetched(config, OSError('no network')).startswith(
            "model.backbone.init_cfg.checkpoint='torchvision://resnet18' could not be fetched (no network). Without a"
        )
        (tmp_path / 'hub/checkpoints').mkdir(parents=True)
        with open(kept, 'wb') as file:
            file.write(b'half of a file')
        with pytest.raises(ValueError, match=r'resnet18-.*fetched before for .* is damaged .*: delete it'):
            check_weights(config)

    def test_a_local_file(self, tmp_path):
        config = detector_config()
        config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'none.pth'))
        with pytest.raises(FileNotFoundError, match='none.pth does not exist .model.backbone.init_cfg.checkpoint.'):
            check_weights(config)


def test_a_shared_memory_that_is_too_small(tmp_path, monkeypatch):
    config = coco_runner_config(tmp_path)
    free = 2 * 2 * 2 * 3 * 64 * 64
    monkeypatch.setattr('shutil.disk_usage', lambda folder: type('Usage', (), dict(free=free - 1)))
    check_shared_memory(config, str(tmp_path))
    config.train_dataloader.num_workers = 2
    with pytest.raises(ValueError, match='2 loader workers put up to 0 MB of images there: enlarge it'):
        check_shared_memory(config, str(tmp_path))
    monkeypatch.setattr('shutil.disk_usage', lambda folder: type('Usage', (), dict(free=free)))
    check_shared_memory(config, str(tmp_path))


def test_what_a_training_never_reaches():
    config = detector_config()
    assert check_schedule(config) == []
    config.train_cfg.update(max_epochs=4, val_interval=6)
    milestones, validation = check_schedule(config)
    assert milestones.startswith('param_scheduler.1.milestones (MultiStepLR) is [8, 11], but the training ends at')
    assert validation == 'train_cfg.val_interval=6 exceeds max_epochs=4: there will be no validation'
    config = segmentor_config()
    assert check_schedule(config) == []
    config.train_cfg.max_iters = 1000
    assert 'param_scheduler.0.end (PolyLR) is 40000' in check_schedule(config)[0]


def test_weights_of_another_model(tmp_path):
    config = coco_runner_config(tmp_path)
    model = runner(config).model
    path = tmp_path / 'backbone.pth'
    some = tmp_path / 'neck.pth'
    torch.save(dict(state_dict=model.neck.state_dict(prefix='neck.')), some)
    check_load_from(model, str(some))
    torch.save(model.backbone.state_dict(), path)
    with pytest.raises(ValueError, match="backbone.pth holds no weights of the config's model.*init_cfg=dict"):
        check_load_from(model, str(path))
