"""A checkpoint hook whose files stay intact if the process is killed."""

import errno
import os
import os.path as osp
import re
from collections import deque
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import BaseStorageBackend, LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint

from ..checkpoint_file import check_whole
from .work_folder import hold_folder, release_folder


@register_backend('AtomicLocalBackend')
class AtomicLocalBackend(LocalBackend):
    """A local storage backend with atomic writes: to a temporary file, which is then renamed."""

    def put(self, obj: bytes, filepath: 'str | Path') -> None:
        """Write bytes to a file; its folder is created if it does not exist.

        Raises:
            OSError: The file cannot be written; for a full disk, the message says what is intact.
        """
        os.makedirs(osp.dirname(filepath) or '.', exist_ok=True)
        temporary = f'{filepath}.{os.getpid()}.tmp'
        try:
            with open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, filepath)
        except BaseException as error:
            Path(temporary).unlink(missing_ok=True)  # free the space on a full disk
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(
                    f'the disk is full: {filepath} could not be written. Earlier checkpoints are intact: free some '
                    'space, then continue with --resume'
                ) from error
            raise

    def put_text(self, obj: str, filepath: 'str | Path', encoding: str = 'utf-8') -> None:
        """Write text to a file."""
        self.put(obj.encode(encoding), filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` for runs that may be killed at any moment, even while saving.

    A local checkpoint is written to a temporary file and renamed. ``last_checkpoint`` is updated next, and only then is
    the oldest checkpoint deleted. Before a resume, the hook checks that the checkpoint is complete. It refuses a second
    training in the same work folder. The arguments are those of ``CheckpointHook``.

    Example:
        >>> default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3))
    """

    plain = CheckpointHook

    # Set by the parent class.
    file_backend: BaseStorageBackend
    keep_ckpt_ids: deque[int]

    def before_run(self, runner: Runner) -> None:
        """Check the checkpoint from which the run is about to resume.

        Raises:
            RuntimeError: It is missing or damaged; the message names it and the latest intact one.
        """
        if not runner._resume or runner._has_loaded:
            return
        path = runner._load_from or find_latest_checkpoint(runner.work_dir)
        if path is not None and '://' not in path:
            check_whole(path, runner.work_dir, re.sub(r'\{[^}]*\}', '*', self.filename_tmpl))

    def before_train(self, runner: Runner) -> None:
        """Lock the work folder and set up where checkpoints are saved; see ``CheckpointHook``.

        Raises:
            RuntimeError: Another process trains in the folder.
        """
        if is_main_process():
            hold_folder(runner.work_dir)
        super().before_train(runner)
        if type(self.file_backend) is LocalBackend and self.file_client_args is None:
            self.backend_args = dict(backend='AtomicLocalBackend')
            self.file_backend = AtomicLocalBackend()
            if is_main_process():
                for leftover in Path(self.out_dir).glob('*.pth.*tmp'):
                    leftover.unlink()

    def after_train(self, runner: Runner) -> None:
        """Unlock the work folder; see ``CheckpointHook``."""
        super().after_train(runner)
        release_folder(runner.work_dir)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        steps = []
        if self.max_keep_ckpts > 0:
            # The checkpoint also lists the outdated ones, so that a run killed here deletes them when it resumes.
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
    """A file backend that delays the removal of files until ``remove_now``."""

    def __init__(self, backend: BaseStorageBackend) -> None:
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
