import copy
import errno
import shutil

import pytest
import torch
from mmengine.hooks import Hook
from runners import HOOKS, classification_runner_config, coco_runner_config, renamed, runner

import manpp_mm.hooks.atomic_checkpoint_hook as atomic
from manpp_mm.checkpoint_file import check_whole
from manpp_mm.hooks import AtomicCheckpointHook

pytestmark = pytest.mark.slow

REPRODUCIBLE = dict(type='ReproducibleHook')


class Interrupt(Exception):
    pass


class InterruptHook(Hook):
    """Ends training by an exception at the end of an iteration, after the checkpoint."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            raise Interrupt


def loop_config(root, loop: str, workers: int, hooks: list, persistent: bool = False):
    """Three epochs of two iterations, or six iterations, with colours drawn at random; a checkpoint at each end."""
    config = coco_runner_config(root)
    config.custom_hooks = HOOKS + hooks
    config.train_dataloader.dataset.pipeline.insert(2, dict(type='PhotoMetricDistortion'))
    config.train_dataloader.update(num_workers=workers, persistent_workers=persistent)
    checkpoint = dict(type='AtomicCheckpointHook', interval=1, by_epoch=loop == 'epoch', max_keep_ckpts=2)
    config.default_hooks.checkpoint = checkpoint
    config.train_cfg.max_epochs = 3
    if loop == 'iteration':
        config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=6)
        config.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    return config


def end_workers(run) -> None:
    """End living workers; garbage-collected with the Runner each waits five seconds for the news."""
    batches = getattr(run.train_loop, 'dataloader_iterator', None)
    for owner in (getattr(batches, 'batches', batches), run.train_dataloader):
        if hasattr(getattr(owner, '_iterator', None), '_shutdown_workers'):
            owner._iterator._shutdown_workers()


def final_state(run) -> dict:
    """Weights, momentum branches, buffers and the optimizer's state."""
    end_workers(run)
    optimizer = run.optim_wrapper.optimizer
    kept = {f'{i}.{k}': v for i, p in enumerate(optimizer.state.values()) for k, v in p.items()}
    return {**run.model.state_dict(), **{k: v for k, v in kept.items() if isinstance(v, torch.Tensor)}}


def train_in_two_parts(config, iteration: int) -> dict:
    first = runner(renamed(config))
    first.register_hook(InterruptHook(iteration), 'LOWEST')
    with pytest.raises(Interrupt):
        first.train()
    end_workers(first)
    second = runner(renamed(copy.deepcopy(config), resume=True))
    second.train()
    return final_state(second)


@pytest.mark.parametrize(('workers', 'persistent'), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize('loop', ['epoch', 'iteration'])
def test_a_resumed_run_ends_as_one_that_never_stopped(tmp_path, loop, workers, persistent):
    whole = runner(loop_config(tmp_path / 'whole', loop, workers, [REPRODUCIBLE], persistent))
    whole.train()
    expected = final_state(whole)
    assert any('momentum_buffer' in name for name in expected)
    # Of an epoch that was cut short nothing counts.
    found = train_in_two_parts(loop_config(tmp_path / 'parts', loop, workers, [REPRODUCIBLE], persistent), 3)
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


def test_a_classifier_goes_on_as_if_it_had_never_stopped(tmp_path):
    pytest.importorskip('mmpretrain')

    def config(root):
        made = classification_runner_config(root)
        made.custom_hooks = [*HOOKS, REPRODUCIBLE]
        made.train_dataloader.dataset.pipeline.insert(0, dict(type='RandomFlip', prob=0.5))
        made.default_hooks.checkpoint = dict(type='AtomicCheckpointHook', interval=1)
        return made

    whole = runner(config(tmp_path / 'whole'))
    whole.train()
    expected = final_state(whole)
    assert any('momentum' in name and 'branches' in name for name in expected)
    found = train_in_two_parts(config(tmp_path / 'parts'), whole.max_iters // 2 + 1)
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


def test_without_the_hook_it_does_not(tmp_path):
    whole = runner(loop_config(tmp_path / 'whole', 'iteration', 0, []))
    whole.train()
    found = train_in_two_parts(loop_config(tmp_path / 'parts', 'iteration', 0, []), 3)
    assert any(not torch.equal(found[name], value) for name, value in final_state(whole).items())


def test_an_epoch_loop_refuses_checkpoints_inside_an_epoch(tmp_path):
    config = loop_config(tmp_path, 'epoch', 0, [REPRODUCIBLE])
    config.default_hooks.checkpoint.by_epoch = False
    with pytest.raises(ValueError, match='default_hooks.checkpoint.by_epoch=False'):
        runner(config).train()


def test_a_run_without_a_seed_is_warned(tmp_path, monkeypatch):
    config = loop_config(tmp_path, 'epoch', 0, [REPRODUCIBLE])
    config.pop('randomness')
    config.train_cfg.max_epochs = 1
    run = runner(config)
    warned: list[str] = []
    monkeypatch.setattr(run.logger, 'warning', lambda text, *_: warned.append(text))
    run.train()
    assert any('randomness=dict(seed=...)' in text for text in warned)


class TestAtomicCheckpointHook:
    def test_keeps_the_newest_and_points_to_the_last(self, tmp_path):
        run = runner(loop_config(tmp_path, 'iteration', 0, []))
        run.train()
        work = tmp_path / 'work'
        assert sorted(p.name for p in work.glob('*.pth*')) == ['iter_5.pth', 'iter_6.pth']
        assert (work / 'last_checkpoint').read_text() == str(work / 'iter_6.pth')

    def test_the_oldest_goes_last(self, tmp_path, monkeypatch):
        order = []
        put, remove = atomic.AtomicLocalBackend.put, atomic.AtomicLocalBackend.remove
        monkeypatch.setattr(
            atomic.AtomicLocalBackend, 'put', lambda s, o, path: (put(s, o, path), order.append(str(path)))[0]
        )
        monkeypatch.setattr(
            atomic.AtomicLocalBackend, 'remove', lambda s, path: (remove(s, path), order.append(f'removed {path}'))[0]
        )
        runner(loop_config(tmp_path, 'iteration', 0, [])).train()
        work = tmp_path / 'work'
        expected = [f'{work}/iter_3.pth', f'{work}/last_checkpoint', f'removed {work}/iter_1.pth']
        assert order[4:7] == expected

    def test_a_write_that_fails_leaves_the_old_file(self, tmp_path, monkeypatch):
        backend, path = atomic.AtomicLocalBackend(), tmp_path / 'folder' / 'file'
        backend.put_text('old', path)
        monkeypatch.setattr(atomic.os, 'fsync', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
        with pytest.raises(OSError, match='disk full'):
            backend.put_text('new', path)
        assert path.read_text() == 'old'
        assert [p.name for p in path.parent.iterdir()] == ['file']

    def test_a_full_disk_is_named(self, tmp_path, monkeypatch):
        config = loop_config(tmp_path, 'iteration', 0, [])
        run = runner(config)
        put = atomic.os.fsync
        calls = []

        def full_from_the_third(number: int) -> None:
            calls.append(number)
            if len(calls) > 4:  # a checkpoint and last_checkpoint, twice
                raise OSError(errno.ENOSPC, 'No space left on device')
            put(number)

        monkeypatch.setattr(atomic.os, 'fsync', full_from_the_third)
        message = r'the disk is full: .*iter_3.pth could not be written. Earlier checkpoints are intact'
        with pytest.raises(OSError, match=message):
            run.train()
        work = tmp_path / 'work'
        assert sorted(p.name for p in work.glob('*.pth*')) == ['iter_1.pth', 'iter_2.pth']
        assert (work / 'last_checkpoint').read_text() == str(work / 'iter_2.pth')

    def test_one_that_was_to_be_deleted_is_deleted_on_resume(self, tmp_path, monkeypatch):
        config = loop_config(tmp_path, 'iteration', 0, [])
        remove = atomic.AtomicLocalBackend.remove
        monkeypatch.setattr(atomic.AtomicLocalBackend, 'remove', lambda *_: (_ for _ in ()).throw(Interrupt))
        with pytest.raises(Interrupt):
            runner(renamed(config)).train()
        work = tmp_path / 'work'
        assert len(list(work.glob('*.pth'))) == 3
        monkeypatch.setattr(atomic.AtomicLocalBackend, 'remove', remove)
        runner(renamed(config, resume=True)).train()
        assert sorted(p.name for p in work.glob('*.pth')) == ['iter_5.pth', 'iter_6.pth']

    def test_the_best_checkpoint_outlives_a_failure_to_write_a_better_one(self, tmp_path):
        hook = AtomicCheckpointHook(interval=1, save_best='score', rule='greater')
        run = runner(loop_config(tmp_path, 'iteration', 0, []))
        work = tmp_path / 'work'
        run.train()
        hook.before_train(run)
        hook.after_val_epoch(run, dict(score=1.0))
        best = hook.best_ckpt_path
        assert best.endswith('best_score_epoch_0.pth')
        hook.filename_tmpl = 'second_{}.pth'
        hook.last_ckpt = None
        save, run.save_checkpoint = run.save_checkpoint, lambda *_, **__: (_ for _ in ()).throw(OSError('disk full'))
        with pytest.raises(OSError, match='disk full'):
            hook.after_val_epoch(run, dict(score=2.0))
        assert (work / best).exists()
        run.save_checkpoint = save
        hook.best_ckpt_path = best
        hook.after_val_epoch(run, dict(score=3.0))
        assert not (work / best).exists()
        assert (work / 'best_score_second_0.pth').exists()

    @pytest.mark.parametrize('damage', ['truncated', 'flipped', 'empty', 'missing'])
    def test_a_damaged_checkpoint_is_named_with_the_previous_good_one(self, tmp_path, damage):
        config = loop_config(tmp_path, 'iteration', 0, [])
        runner(renamed(config)).train()
        last, good = tmp_path / 'work' / 'iter_6.pth', tmp_path / 'work' / 'iter_5.pth'
        content = bytearray(last.read_bytes())
        if damage == 'truncated':
            last.write_bytes(content[: len(content) // 2])
        elif damage == 'flipped':
            content[len(content) // 2] ^= 255
            last.write_bytes(content)
        elif damage == 'empty':
            last.write_bytes(b'')
        else:
            last.unlink()
        with pytest.raises(RuntimeError, match=rf'{last} (is damaged|does not exist).*The latest intact one is {good}'):
            runner(renamed(config, resume=True)).train()
        run = runner(renamed(config, resume=True, load_from=str(good)))
        run.train()
        assert run.iter == 6

    @pytest.mark.parametrize('position', range(1, 46, 4))
    def test_damage_in_the_archives_directory(self, tmp_path, position):
        torch.save(dict(a=1), tmp_path / 'iter_1.pth')
        torch.save(dict(a=1), tmp_path / 'iter_2.pth')
        path = tmp_path / 'iter_2.pth'
        content = bytearray(path.read_bytes())
        content[content.rindex(b'PK\x01\x02') + position] ^= 255
        path.write_bytes(content)
        try:
            torch.load(path, weights_only=True)
        except Exception:
            with pytest.raises(RuntimeError, match=rf'{path} .*The latest intact one is {tmp_path / "iter_1.pth"}'):
                check_whole(str(path), str(tmp_path), 'iter_*.pth')

    def test_an_empty_pointer_and_names_with_a_format(self, tmp_path):
        config = loop_config(tmp_path, 'iteration', 0, [])
        config.default_hooks.checkpoint.filename_tmpl = 'step_{:03d}.pth'
        runner(renamed(config)).train()
        (tmp_path / 'work' / 'last_checkpoint').write_text('')
        (tmp_path / 'work' / 'step_001.pth.123.tmp').write_bytes(b'half')
        good = tmp_path / 'work' / 'step_006.pth'
        with pytest.raises(
            RuntimeError, match=rf'last_checkpoint names no checkpoint.*The latest intact one is {good}'
        ):
            runner(renamed(config, resume=True)).train()
        runner(renamed(config, resume=True, load_from=str(good))).train()
        assert not list((tmp_path / 'work').glob('*.tmp'))

    def test_no_good_one(self, tmp_path):
        config = loop_config(tmp_path, 'iteration', 0, [])
        (tmp_path / 'work').mkdir()
        path = tmp_path / 'work' / 'iter_1.pth'
        path.write_bytes(b'PK nothing')
        with pytest.raises(RuntimeError, match='no other checkpoint in .*; train without --resume'):
            runner(renamed(config, resume=True, load_from=str(path))).train()
        shutil.rmtree(tmp_path / 'work')
