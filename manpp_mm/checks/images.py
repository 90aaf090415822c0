"""Checks that image files exist, can be read, and have the annotated size and orientation."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.progress import track

MOST = 2000
"""The maximum number of files to read; from a larger data set, an evenly spread sample is read."""

_ORIENTATION = 0x0112
_TAIL = 4096
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True)
class ImageFile:
    """The content of an image file's header.

    Attributes:
        path: The file.
        stored: (width, height) as stored.
        loaded: (width, height) as loaded by MMCV, which applies the EXIF orientation.
    """

    path: str
    stored: tuple[int, int]
    loaded: tuple[int, int]


def sample(row: Sequence, most: int = MOST) -> list:
    """Return evenly spread entries, including the first and the last; all entries of a short sequence."""
    if len(row) <= most:
        return list(row)
    return [row[index] for index in np.linspace(0, len(row) - 1, most).round().astype(int)]


def check_exist(paths: Sequence[str], key: str) -> None:
    """Check that image files exist.

    Raises:
        FileNotFoundError: A file is missing; the message counts them.
    """
    looked_at = sample(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        there = list(pool.map(os.path.isfile, looked_at))
    if not all(there):
        first = looked_at[there.index(False)]
        of = f'{len(looked_at)} images' + (f' checked out of {len(paths)}' if len(looked_at) < len(paths) else '')
        raise FileNotFoundError(f'{there.count(False)} of {of} do not exist ({key}), the first is {first}')


def in_parallel(function: Callable, items: Sequence, what: str) -> list:
    """Apply a function to items in parallel, with a progress bar if there are many."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # aerial images exceed it
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results: Iterable = pool.map(function, items)
            if len(items) > 200:
                results = track(results, description=what, total=len(items), transient=True)
            return list(results)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_header(path: str) -> ImageFile:
    """Read the header of an image file.

    Raises:
        ValueError: The file is empty, or neither Pillow nor OpenCV can read it; the message names it.
    """
    refuse_empty(path)
    try:
        with Image.open(path) as image:
            stored, kind = image.size, image.format
            # For a PNG, getexif() would decode the whole image.
            turned = (kind != 'PNG' or 'exif' in image.info) and image.getexif().get(_ORIENTATION) in _TURNED
    except (UnidentifiedImageError, OSError) as error:
        picture = cv2.imread(path)
        if picture is None:
            raise ValueError(f'{path} is not an image that can be read: {error}') from error
        return ImageFile(path, picture.shape[1::-1], picture.shape[1::-1])
    if not _ends(path, kind) and mmcv.imread(path) is None:
        raise ValueError(f'{path} is cut off: download it again, or remove it from the annotations')
    return ImageFile(path, stored, stored[::-1] if turned else stored)


def refuse_empty(path: str) -> None:
    """Raise a ValueError that names the file if it is empty."""
    if os.path.getsize(path) == 0:
        raise ValueError(f'{path} is empty: download it again, or remove it from the annotations')


def _ends(path: str, kind: str) -> bool:
    """Return whether a JPEG or PNG has its end marker; True for other formats."""
    mark = dict(JPEG=b'\xff\xd9', PNG=b'IEND').get(kind, b'')
    with open(path, 'rb') as file:
        file.seek(max(0, os.path.getsize(path) - _TAIL))
        return mark in file.read()


def check_sizes(files: Iterable[tuple[ImageFile, tuple[int, int]]], path: str) -> 'str | None':
    """Compare image files with the sizes given in the annotations.

    Args:
        files: Each with the (width, height) given in the annotations.
        path: The annotation file.

    Returns:
        A warning if sizes differ for another reason than a rotation.

    Raises:
        ValueError: The annotations refer to the stored pixels, but the image is rotated on loading by its EXIF
            orientation.
    """
    differing = []
    for file, said in files:
        if tuple(said) == file.loaded:
            continue
        if tuple(said) == file.stored:
            raise ValueError(
                f'{file.path} has an EXIF orientation: {path} refers to its {_words(file.stored)} pixels as stored, '
                f'but it is loaded as {_words(file.loaded)}. Rotate the boxes, or save the images without EXIF '
                "orientation, or set color_type='color_ignore_orientation' in every LoadImageFromFile"
            )
        differing.append((file, said))
    if not differing:
        return None
    file, said = differing[0]
    return (
        f'{path}: {len(differing)} images have another size than it says, the first is {file.path}: '
        f'{_words(file.loaded)} pixels instead of {_words(said)}. Boxes outside the annotated size are dropped'
    )


def describe_sizes(sizes: Sequence[tuple[int, int]]) -> str:
    """Return the smallest, largest and most common image size, in one line."""
    smallest, largest = min(sizes, key=prod), max(sizes, key=prod)
    (common, number), *_ = Counter(sizes).most_common(1)
    if smallest == largest == common:
        return f'all {len(sizes)} images read have {_words(common)} pixels'
    return (
        f'images from {_words(smallest)} to {_words(largest)} pixels; {number} of the {len(sizes)} read have '
        f'{_words(common)}'
    )


def _words(size: Sequence[int]) -> str:
    return f'{size[0]}x{size[1]}'
