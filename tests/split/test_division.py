"""Which process trains which blocks, and what cannot be split."""

from itertools import combinations
from types import SimpleNamespace

import pytest
from helpers import detector_config, segmentor_config

from manpp_mm.split.division import balanced, block_work, divided, parse_split
from manpp_mm.split.prepare import load_nothing, process_config, refuse_unsplittable


@pytest.mark.parametrize('work', [[1, 1, 1, 1], [5, 1, 1, 1, 4], [1, 2, 3, 4, 5, 6], [9, 1, 1], [0, 0, 3]])
@pytest.mark.parametrize('processes', [1, 2, 3])
def test_balanced_is_the_best_of_all_divisions(work, processes):
    def largest(ends):
        return max(sum(work[a:b]) for a, b in zip([0, *ends], [*ends, len(work)], strict=True))

    found = balanced(work, processes)
    assert [i for part in found for i in part] == list(range(len(work)))
    assert len(found) == processes and all(found)
    best = min(largest(ends) for ends in combinations(range(1, len(work)), processes - 1))
    assert max(sum(work[i] for i in part) for part in found) == best


def test_only_the_first_process_loads():
    runner = SimpleNamespace(_train_dataloader=dict(batch_size=2, num_workers=4, prefetch_factor=2, timeout=5))
    given = runner._train_dataloader
    load_nothing(runner)
    assert runner._train_dataloader == dict(batch_size=2, num_workers=0, persistent_workers=False)
    assert given['num_workers'] == 4


def test_split_by_hand():
    assert divided(parse_split('3,5')) == [range(3), range(3, 8)]
    for text in ('3;5', '0,2', '', '-1,2'):
        with pytest.raises(ValueError, match='number of local blocks of each process, such as 3,5'):
            parse_split(text)


def test_work_grows_with_the_images():
    config = detector_config()
    config.train_dataloader.batch_size = 1
    config.train_dataloader.dataset.pipeline[2].update(scale=(640, 320), keep_ratio=False)
    once, used = block_work(config)
    assert used == {0, 1, 2}
    config.train_dataloader.batch_size = 2
    twice, _ = block_work(config)
    assert len(once) == len(config.model.backbone.cuts) + 1
    # A block's work is linear in the pixels; that of the last one has the regions' part, which is not.
    assert twice[:-1] == pytest.approx([2 * work for work in once[:-1]], rel=1e-3)
    assert once[-1] < twice[-1] < 2 * once[-1]


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'model.backbone.gradient': 'exact', 'model.backbone.auxiliary': None}, "gradient='exact' cannot be split"),
        ({'model.backbone.lateral_gradient': True}, 'lateral_gradient=True cannot be split'),
        ({'model.backbone.local_blocks': 'auto', 'model.backbone.cuts': None}, 'tools/fit.py CONFIG'),
        ({'custom_hooks': [dict(type='GradientSwitchHook', end=0.5)]}, 'GradientSwitchHook cannot be split'),
        ({'custom_hooks': [dict(type='EMAHook')]}, 'EMAHook cannot be split'),
        ({'launcher': 'pytorch'}, 'remove --launcher'),
        ({'custom_hooks': []}, 'LocalLearningHook'),
        ({'model.backbone.type': 'ResNet'}, 'ResNet'),
    ],
)
def test_what_cannot_be_split(options, words):
    config = detector_config()
    config.custom_hooks = [dict(type='LocalLearningHook')]
    config.merge_from_dict(options)
    if options.get('custom_hooks'):
        config.custom_hooks.append(dict(type='LocalLearningHook'))
    with pytest.raises(ValueError, match=words):
        refuse_unsplittable(config)


def test_the_config_of_each_process():
    config = segmentor_config()
    config.custom_hooks = [
        dict(type='LocalLearningHook'),
        dict(type='CheckpointModulesHook', modules=['decode_head']),
    ]
    config.optim_wrapper.clip_grad = dict(max_norm=3, norm_type=1)
    config.work_dir = 'work'
    first, last = process_config(config, 0, 1, 'folder'), process_config(config, 1, 1, 'folder')
    clip = dict(type='BlockClipHook', max_norm=3, norm_type=1)
    seeded = dict(type='LocalLearningHook', seed_blocks=True)
    assert first.custom_hooks == [seeded, clip]
    assert last.custom_hooks == [seeded, config.custom_hooks[1], clip]
    assert first.optim_wrapper.clip_grad is None and last.optim_wrapper.clip_grad is None
    assert (first.val_cfg.type, last.val_cfg.type) == ('AwaitedValLoop', 'ValLoop')
    assert first.train_dataloader == last.train_dataloader == config.train_dataloader  # checkpoints hold it
    assert (first.work_dir, last.work_dir) == ('folder/0', 'work')
    # Clipping by value couples no blocks.
    config.optim_wrapper.clip_grad = dict(type='value', clip_value=1)
    assert process_config(config, 0, 1, 'folder').optim_wrapper.clip_grad == dict(type='value', clip_value=1)
