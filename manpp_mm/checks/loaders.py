"""Check that shared memory has room for the batches of the loader workers."""

import os.path as osp
import shutil
from math import prod

from mmengine.config import Config

from ..memory.inputs import training_input

_FOLDER = '/dev/shm'
_PREFETCHED = 2


def check_shared_memory(config: Config, folder: str = _FOLDER) -> None:
    """Check that shared memory can hold the batches of all workers; if it is full, a worker dies or hangs silently.

    Raises:
        ValueError: It is too small.
    """
    loader = config.get('train_dataloader') or {}
    workers = loader.get('num_workers') or 0
    if not workers or not osp.isdir(folder):
        return
    try:
        images, size = training_input(config)
    except (ValueError, TypeError, KeyError):  # images without a fixed size: the need is unknown
        return
    needed = workers * (loader.get('prefetch_factor') or _PREFETCHED) * images * 3 * prod(size)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f'{folder} has {free >> 20} MB free, but {workers} loader workers put up to {needed >> 20} MB of images '
            'there: enlarge it (docker run --shm-size=1g), or set train_dataloader.num_workers=0'
        )
