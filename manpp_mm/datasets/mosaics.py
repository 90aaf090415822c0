"""A data set of small images in mosaics."""

from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmpretrain.datasets import BaseDataset


class MosaicDataset(BaseDataset):
    """Small images of one size, those of each class laid side by side in one picture ``{split}_{class}.EXT``.

    All of them stay in memory. Rows are read from left to right, the topmost first. Every tile is an image: if the
    last row is not full, ``per_class`` leaves out its blank tiles.

    Args:
        data_root: The folder of the pictures.
        split: The first part of their names, ``'train'`` say. Without ``classes`` no other split's name may begin with
            it and an underscore.
        tile: Height and width of an image in pixels.
        per_class: How many images of each class, the first ones; None takes all.
        kwargs: MMPretrain's ``BaseDataset``'s, ``pipeline`` and ``metainfo`` with ``classes``, the names in order; None
            takes those of the pictures by alphabet.

    Raises:
        FileNotFoundError: There is no picture of the split or of a class.
        ValueError: A picture cannot be read or is no multiple of ``tile``.
    """

    def __init__(self, data_root: str, split: str, tile: int = 32, per_class: int | None = None, **kwargs: Any) -> None:
        self.split = split
        self.tile = tile
        self.per_class = per_class
        metainfo = dict(kwargs.pop('metainfo', None) or {})
        if 'classes' not in metainfo:
            metainfo['classes'] = self._found(Path(data_root))
        super().__init__(ann_file='', data_root=data_root, metainfo=metainfo, **kwargs)

    def _found(self, root: Path) -> list[str]:
        names = sorted({path.stem.removeprefix(f'{self.split}_') for path in root.glob(f'{self.split}_*.*')})
        if not names:
            raise FileNotFoundError(f'{root} holds no picture {self.split}_CLASS.* (data_root of a MosaicDataset)')
        return names

    def load_data_list(self) -> list[dict]:
        """Cut the pictures into images."""
        found = []
        for label, name in enumerate(self.metainfo['classes']):
            path = next(iter(sorted(Path(self.data_root).glob(f'{self.split}_{name}.*'))), None)
            if path is None:
                raise FileNotFoundError(f'{self.data_root} holds no picture {self.split}_{name}.*')
            images = self._tiles(path)
            count = len(images) if self.per_class is None else self.per_class
            found += [dict(img=image, gt_label=label) for image in images[:count]]
        return found

    def _tiles(self, path: Path) -> np.ndarray:
        """(number, tile, tile, 3), RGB as MMPretrain's other data sets in memory have it."""
        picture, side = mmcv.imread(path), self.tile
        if picture is None:
            raise ValueError(f'{path} is not an image that OpenCV can read')
        height, width = picture.shape[:2]
        if height % side or width % side:
            raise ValueError(f'{path} is {width}x{height} pixels, no multiple of tile={side}')
        rows = picture.reshape(height // side, side, width // side, side, 3).swapaxes(1, 2)
        return rows.reshape(-1, side, side, 3)[..., ::-1]
