"""The checkpoint hook that survives being killed at any moment."""

import os
import os.path as osp
import re
import zipfile
from collections import deque
from pathlib import Path
from pickle import UnpicklingError

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint


@register_backend('AtomicLocalBackend')
class AtomicLocalBackend(LocalBackend):
    """Local files that are either there as a whole or not at all: written beside their place, then renamed."""

    def put(self, obj: bytes, filepath: 'str | Path') -> None:
        """Write bytes to a file; its folder is made if it does not exist."""
        os.makedirs(osp.dirname(filepath) or '.', exist_ok=True)
        temporary = f'{filepath}.tmp'
        try:
            with open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, filepath)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)  # a full disk should not stay full
            raise

    def put_text(self, obj: str, filepath: 'str | Path', encoding: str = 'utf-8') -> None:
        """Write a text to a file."""
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` for runs that may be killed at any moment, while saving included.

    A local checkpoint is written to a temporary file and renamed; ``last_checkpoint`` follows, and only then the
    oldest is deleted. Before a resume it looks whether the checkpoint is whole. Arguments are ``CheckpointHook``'s.

    Example:
        >>> default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3))
    """

    def before_run(self, runner: Runner) -> None:
        """Look at the checkpoint that the run is about to resume from.

        Raises:
            RuntimeError: It is missing or damaged; the message names it and the previous good one.
        """
        if not runner._resume or runner._has_loaded:
            return
        path = runner._load_from or find_latest_checkpoint(runner.work_dir)
        if path is not None and '://' not in path:
            check_checkpoint(path, runner.work_dir, re.sub(r'\{[^}]*\}', '*', self.filename_tmpl))

    def before_train(self, runner: Runner) -> None:
        """Find out where checkpoints go; see ``CheckpointHook``."""
        super().before_train(runner)
        if type(self.file_backend) is LocalBackend and self.file_client_args is None:
            self.backend_args = dict(backend='AtomicLocalBackend')
            self.file_backend = AtomicLocalBackend()
            if is_main_process():
                for leftover in Path(self.out_dir).glob('*.pth.tmp'):
                    leftover.unlink()

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        steps = []
        if self.max_keep_ckpts > 0:
            # The checkpoint names the outdated ones too, so that a run that is killed here deletes them on resume.
            steps = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
            runner.message_hub.update_info('keep_ckpt_ids', steps)
            self.keep_ckpt_ids = deque(steps, self.max_keep_ckpts)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            AtomicLocalBackend().put_text(self.last_ckpt, osp.join(runner.work_dir, 'last_checkpoint'))
            for outdated in steps[: -self.max_keep_ckpts]:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(outdated))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend = self.file_backend
        self.file_backend = late = _LateRemoval(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best = {self.best_ckpt_path} if hasattr(self, 'best_ckpt_path') else set()
        late.remove_now(keep=best | set(getattr(self, 'best_ckpt_path_dict', {}).values()))


class _LateRemoval:
    """A file backend that removes files when told to."""

    def __init__(self, backend: LocalBackend) -> None:
        self._backend = backend
        self._outdated: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._outdated.append(path)

    def remove_now(self, keep: set) -> None:
        for path in self._outdated:
            if path not in keep:
                self._backend.remove(path)


def check_checkpoint(path: str, work_dir: str, siblings: str = '*.pth') -> None:
    """Look whether a checkpoint is there and whole.

    Args:
        path: The file.
        work_dir: Where other checkpoints may lie, beside those next to it.
        siblings: Pattern of their names.

    Raises:
        RuntimeError: It is not; the message names the newest good one of the others.
    """
    fault = _fault(path)
    if fault is None:
        return
    folders = {Path(path).expanduser().parent} if path else set()
    folders.add(Path(work_dir))
    others = [other for folder in folders for other in folder.glob(siblings) if str(other) != path]
    others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
    good = next((other for other in others if _fault(str(other)) is None), None)
    way = f'There is no other checkpoint in {", ".join(map(str, sorted(folders)))}; train without --resume.'
    if good is not None:
        way = f'The previous good one is {good}: resume from it (--resume {good}, or load_from in the config).'
    named = f'the checkpoint {path}' if path else f'{work_dir}/last_checkpoint names no checkpoint: it'
    raise RuntimeError(f'{named} {fault} and cannot be resumed from. {way}')


def _fault(path: str) -> str | None:
    if not path:
        return 'is empty'
    path = osp.expanduser(path)
    if not osp.isfile(path):
        return 'does not exist'
    with open(path, 'rb') as file:
        start = file.read(2)
    if start == b'\x80\x02':
        return None  # the format of torch < 1.6, which has no checksums
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            torch.load(path, map_location='cpu', mmap=True, weights_only=True)
    except UnpicklingError:
        return None  # whole, but with classes that loading has to judge
    except Exception as error:  # a damaged directory of the archive may look like anything
        return f'is damaged ({error})'
    return None if damaged is None else f'is damaged (checksum of {damaged})'
