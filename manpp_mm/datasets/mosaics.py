"""A data set of small images tiled into mosaics."""

from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmpretrain.datasets import BaseDataset


class MosaicDataset(BaseDataset):
    """Small images of one size, tiled into one picture ``{split}_{class}.EXT`` per class.

    All images stay in memory. Tiles are read row by row, from left to right. Every tile is an image: if the last row is
    not full, use ``per_class`` to skip its blank tiles.

    Args:
        data_root: The folder of the pictures.
        split: The first part of their names, such as ``'train'``. Without ``classes``, no other split's name may start
            with it and an underscore.
        tile: Height and width of an image in pixels.
        per_class: Use only this many images of each class, the first ones; None uses all.
        kwargs: Arguments of MMPretrain's ``BaseDataset``, such as ``pipeline`` and ``metainfo`` with ``classes``, the
            names in order; by default the names of the pictures, sorted.

    Raises:
        FileNotFoundError: There is no picture of the split or of a class.
        ValueError: A picture cannot be read, or its size is not a multiple of ``tile``.
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
            raise FileNotFoundError(f'{root} has no picture {self.split}_CLASS.* (data_root of a MosaicDataset)')
        return names

    def load_data_list(self) -> list[dict]:
        """Cut the pictures into images."""
        found = []
        for label, name in enumerate(self.metainfo['classes']):
            path = next(iter(sorted(Path(self.data_root).glob(f'{self.split}_{name}.*'))), None)
            if path is None:
                raise FileNotFoundError(f'{self.data_root} has no picture {self.split}_{name}.*')
            images = self._tiles(path)
            count = len(images) if self.per_class is None else self.per_class
            found += [dict(img=image, gt_label=label) for image in images[:count]]
        return found

    def _tiles(self, path: Path) -> np.ndarray:
        """Return the tiles (number, tile, tile, 3) as RGB, like MMPretrain's other in-memory data sets."""
        picture, side = mmcv.imread(path), self.tile
        if picture is None:
            raise ValueError(f'{path} is not an image that OpenCV can read')
        height, width = picture.shape[:2]
        if height % side or width % side:
            raise ValueError(f'{path} is {width}x{height} pixels, which is not a multiple of tile={side}')
        rows = picture.reshape(height // side, side, width // side, side, 3).swapaxes(1, 2)
        return rows.reshape(-1, side, side, 3)[..., ::-1]
