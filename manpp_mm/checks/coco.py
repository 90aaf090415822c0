"""Checks of a COCO file, and of what MMDetection uses of it."""

import json
import math
import os.path as osp
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from .names import listed

LEFT_OUT = 'of categories not in metainfo.classes'
TINY = 'smaller than a pixel'
_REASONS = (
    'without an image',
    'without a category',
    LEFT_OUT,
    'outside their image',
    TINY,
    'with an area of 0',
    "marked 'ignore'",
)
"""Reasons why a box is not used."""

_SUSPICIOUS_SHARE = 0.1
"""A larger share of boxes that exceed their image suggests another box format."""


@dataclass
class BoxCount:
    """The number of boxes of a COCO file that are used, and why the others are dropped.

    Attributes:
        images: Images in the file.
        used_images: Images with at least one used box.
        boxes: Annotations in the file.
        used: Annotations that training or evaluation uses, including crowds.
        by_class: Used annotations by class name, in the order of the classes.
        dropped: Number of dropped annotations by reason.
        beyond: Number of used boxes that exceed their image by more than a pixel.
    """

    images: int
    used_images: int
    boxes: int
    used: int
    by_class: dict[str, int]
    dropped: dict[str, int] = field(default_factory=dict)
    beyond: int = 0

    def columns(self) -> tuple[str, ...]:
        """Return the column names of a table."""
        return ('class', 'boxes', 'share')

    def rows(self) -> 'Iterable[tuple[str, ...]]':
        """Yield the rows of a table, one per class."""
        for name, number in self.by_class.items():
            yield name, str(number), f'{number / max(self.used, 1):.1%}'

    def __str__(self) -> str:
        text = f'{self.used_images} of {self.images} images, {self.used} of {self.boxes} boxes are used'
        lost = [f'{number} {reason}' for reason, number in self.dropped.items() if number]
        return f'{text}: {", ".join(lost)}' if lost else text


def read_coco(path: str) -> dict[str, Any]:
    """Read a COCO file; if it has no ``annotations``, an empty list is added.

    Raises:
        ValueError: The file is not JSON in UTF-8, or lacks a list; the message names it.
    """
    with open(path, 'rb') as file:
        raw = file.read()
    if raw.startswith((b'\xef\xbb\xbf', b'\xff\xfe', b'\xfe\xff')):
        raise ValueError(
            f'{path} begins with a byte order mark, which pycocotools cannot read: save it as UTF-8 without BOM'
        )
    try:
        found = json.loads(raw.decode('utf-8'))
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not encoded in UTF-8 (byte {error.start}): save it as UTF-8') from error
    except json.JSONDecodeError as error:
        cut = ', its end is missing' if error.pos >= len(error.doc.rstrip()) - 1 else ''
        raise ValueError(f'{path} is not valid JSON{cut}: {error}') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} holds a {type(found).__name__}, not the dict of a COCO file')
    found.setdefault('annotations', [])
    for name in ('images', 'annotations', 'categories'):
        if not isinstance(found.get(name), list) or not all(isinstance(entry, dict) for entry in found[name]):
            raise ValueError(f'{path} is not a COCO file: it needs {name!r}, a list of dicts')
    return found


def check_structure(path: str, found: Mapping[str, Any], evaluated: bool) -> None:
    """Check that a COCO file has all entries that MMDetection and pycocotools read.

    Args:
        path: The file, for messages.
        found: Its content.
        evaluated: Whether pycocotools evaluates on it, which needs ``iscrowd``.

    Raises:
        ValueError: An entry is missing, ids repeat, or no annotation belongs to an image; the message names file and
            entry.
    """
    needed = {
        'categories': ('id', 'name'),
        'images': ('id', 'file_name', 'width', 'height'),
        'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area', *(['iscrowd'] if evaluated else [])),
    }
    way_out = {'area': ': write w * h of its bbox', 'iscrowd': ': write 0'}
    for name, keys in needed.items():
        for key in keys:
            lacking = [index for index, entry in enumerate(found[name]) if key not in entry]
            if lacking:
                raise ValueError(
                    f'{path}: {len(lacking)} of {len(found[name])} {name} lack {key!r}, the first is {name}'
                    f'[{lacking[0]}]{way_out.get(key, "")}'
                )
        for index, entry in enumerate(found[name]):
            if not isinstance(entry['id'], (int, float, str)):
                raise ValueError(
                    f'{path}: the id of {name}[{index}] is {entry["id"]!r}, but must be a number or a string'
                )
        counts = Counter(entry['id'] for entry in found[name])
        identity, times = max(counts.items(), key=lambda item: item[1], default=(None, 0))
        if times > 1:
            raise ValueError(f'{path}: {times} {name} have the id {identity!r}; ids must differ')
    for index, image in enumerate(found['images']):
        if not all(isinstance(image[key], Real) and image[key] > 0 for key in ('width', 'height')):
            raise ValueError(f'{path}: width and height of images[{index}] ({image["file_name"]}) must be positive')
    for index, annotation in enumerate(found['annotations']):
        box = annotation['bbox']
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(e, Real) and math.isfinite(e) for e in box):
            raise ValueError(f'{path}: bbox of annotations[{index}] is {box!r}, not [x, y, width, height]')
        if not isinstance(annotation['area'], Real):
            raise ValueError(f'{path}: area of annotations[{index}] is {annotation["area"]!r}, not a number')
    names = Counter(category['name'] for category in found['categories'])
    if duplicates := [name for name, number in names.items() if number > 1]:
        raise ValueError(f'{path}: several categories are named {duplicates[0]!r}: give each its own name')
    images = {image['id'] for image in found['images']}
    unmatched = [entry['image_id'] for entry in found['annotations'] if entry['image_id'] not in images]
    if unmatched and len(unmatched) == len(found['annotations']):
        example = next(iter(images), None)
        raise ValueError(
            f'{path}: no annotation belongs to an image: image_id is {unmatched[0]!r}, but the ids of images are like '
            f'{example!r}; use numbers for both, or strings for both'
        )


def check_order(path: str, found: Mapping[str, Any], classes: Sequence[str], key: str) -> None:
    """Check that the classes are those of the file, in its order, by which MMDetection numbers them.

    Raises:
        ValueError: A class is not in the file, or the order differs.
    """
    names = [category['name'] for category in found['categories']]
    if lacking := [name for name in classes if name not in names]:
        raise ValueError(
            f'{path} has no category {listed(map(repr, lacking))} ({key}.metainfo.classes); it has '
            f'{listed(map(repr, names))}'
        )
    in_order = [name for name in names if name in set(classes)]
    if in_order != list(classes):
        raise ValueError(
            f'{key}.metainfo.classes is {tuple(classes)}, but the categories of {path} have the order '
            f'{tuple(in_order)}, and MMDetection numbers classes by the file: use its order'
        )


class Usage:
    """Decides which annotations of a file MMDetection's ``CocoDataset`` uses. The file must have a valid structure.

    Args:
        found: The content of the file.
        classes: The data set's classes.
    """

    def __init__(self, found: Mapping[str, Any], classes: Sequence[str]) -> None:
        self.sizes = {image['id']: (image['width'], image['height']) for image in found['images']}
        self.names = {category['id']: category['name'] for category in found['categories']}
        self.classes = set(classes)

    def reason_dropped(self, entry: Mapping[str, Any]) -> str:
        """Return why an annotation is dropped, '' if it is used."""
        size, name = self.sizes.get(entry['image_id']), self.names.get(entry['category_id'])
        if size is None:
            return 'without an image'
        if name is None:
            return 'without a category'
        if name not in self.classes:
            return LEFT_OUT
        if entry.get('ignore'):
            return "marked 'ignore'"
        x, y, width, height = entry['bbox']
        if width < 1 or height < 1:
            return TINY
        if min(x + width, size[0]) <= max(x, 0) or min(y + height, size[1]) <= max(y, 0):
            return 'outside their image'
        return 'with an area of 0' if entry['area'] <= 0 else ''

    def reaches_beyond(self, entry: Mapping[str, Any]) -> bool:
        """Return whether a box exceeds its image by more than a pixel."""
        (x, y, width, height), size = entry['bbox'], self.sizes[entry['image_id']]
        return x + width > size[0] + 1 or y + height > size[1] + 1


def count_boxes(found: Mapping[str, Any], classes: Sequence[str]) -> BoxCount:
    """Count the annotations of a structurally valid file that MMDetection's ``CocoDataset`` uses."""
    usage = Usage(found, classes)
    by_class = dict.fromkeys(classes, 0)
    dropped = dict.fromkeys(_REASONS, 0)
    seen, beyond = set(), 0
    for entry in found['annotations']:
        if reason := usage.reason_dropped(entry):
            dropped[reason] += 1
            continue
        by_class[usage.names[entry['category_id']]] += 1
        seen.add(entry['image_id'])
        beyond += usage.reaches_beyond(entry)
    used = sum(by_class.values())
    return BoxCount(len(found['images']), len(seen), len(found['annotations']), used, by_class, dropped, beyond)


def check_counts(path: str, counts: BoxCount, key: str) -> list[str]:
    """Return warnings if boxes are lost unintentionally, or if many exceed their images."""
    lost = counts.boxes - counts.used - counts.dropped[LEFT_OUT]
    warnings = [f'{path} ({key}): {counts}'] if lost else []
    if counts.beyond > _SUSPICIOUS_SHARE * counts.used:
        warnings.append(
            f'{path} ({key}): {counts.beyond} of {counts.used} boxes exceed their image. Are they '
            '[x1, y1, x2, y2]? COCO uses [x, y, width, height]'
        )
    return warnings


def check_any_used(found: Mapping[str, tuple[str, BoxCount]]) -> None:
    """Check that at least one box is used in a split's data sets.

    Args:
        found: File and count by config key.

    Raises:
        ValueError: No box is used.
    """
    if not found or any(counts.used for _, counts in found.values()):
        return
    key, (path, counts) = next(iter(found.items()))
    if not counts.boxes:
        raise ValueError(f'{path} ({key}) holds no annotations')
    hint = '. Are they divided by the image size? COCO uses pixels' if counts.dropped[TINY] == counts.boxes else ''
    raise ValueError(f'{path} ({key}): {counts}{hint}')


def check_masks(path: str, found: Mapping[str, Any], classes: Sequence[str], evaluated: bool) -> list[str]:
    """Check that every used annotation has a mask, as Mask R-CNN needs.

    Args:
        path: The file, for messages.
        found: Its content.
        classes: The data set's classes.
        evaluated: Whether pycocotools evaluates on it, which fails on polygons with fewer than three points. Training
            skips those.

    Returns:
        A warning that counts such polygons.

    Raises:
        ValueError: A mask is missing, has another format, or is too short to be evaluated.
    """
    usage, short = Usage(found, classes), []
    for index, entry in enumerate(found['annotations']):
        if usage.reason_dropped(entry):
            continue
        mask = entry.get('segmentation')
        where = f'{path}: annotations[{index}] (id {entry["id"]!r})'
        if not mask:
            raise ValueError(
                f'{where} has no segmentation, but the pipeline loads masks (with_mask=True): remove the '
                'annotation, or train without masks'
            )
        if isinstance(mask, Mapping):
            if not {'size', 'counts'} <= mask.keys():
                raise ValueError(f"{where}: segmentation lacks 'size' or 'counts' of a run-length encoding")
        elif not isinstance(mask, list) or not all(isinstance(polygon, list) for polygon in mask):
            raise ValueError(f'{where}: segmentation must be a list of polygons, [[x1, y1, x2, y2, x3, y3, ...], ...]')
        else:
            short += [(where, polygon) for polygon in mask if len(polygon) < 6 or len(polygon) % 2]
    if not short:
        return []
    where, polygon = short[0]
    words = (
        f'{where}: a polygon needs three points or more, [x1, y1, x2, y2, x3, y3, ...], but this one has '
        f'{len(polygon)} numbers'
    )
    if evaluated:
        raise ValueError(words)
    return [f'{words}; {len(short)} such polygons are skipped']


def image_files(
    found: Mapping[str, Any], folder: str, classes: Sequence[str], filtered: Mapping[str, Any]
) -> Iterable[tuple[str, tuple[int, int]]]:
    """Yield path and (width, height) of each image that is read, as given by the file.

    Args:
        found: The content of the COCO file.
        folder: The folder of the images.
        classes: The data set's classes.
        filtered: The data set's ``filter_cfg``; empty if nothing is filtered, as in a test.
    """
    usage = Usage(found, classes)
    annotated = {
        entry['image_id'] for entry in found['annotations'] if usage.names.get(entry['category_id']) in usage.classes
    }
    for image in found['images']:
        size = image['width'], image['height']
        if filtered.get('filter_empty_gt') and image['id'] not in annotated:
            continue
        if min(size) >= filtered.get('min_size', 0):
            yield osp.join(folder, image['file_name']), size
