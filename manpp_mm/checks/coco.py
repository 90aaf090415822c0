"""What a COCO file holds, and what MMDetection makes of it."""

import json
import math
import os.path as osp
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from .names import listed

_MANY = 0.1
"""Share of boxes beyond their images from which on it looks like another format."""


@dataclass
class BoxCount:
    """How many boxes of a COCO file are used, and what became of the others.

    Attributes:
        images: Images in the file.
        used_images: Images with a box that is used.
        boxes: Annotations in the file.
        used: Annotations that training or evaluation sees, crowds among them.
        by_class: Used annotations by class name, in the order of the classes.
        dropped: How many of the others for which reason.
        beyond: How many used ones reach beyond their image by more than a pixel.
    """

    images: int
    used_images: int
    boxes: int
    used: int
    by_class: dict[str, int]
    dropped: dict[str, int] = field(default_factory=dict)
    beyond: int = 0

    def columns(self) -> tuple[str, ...]:
        """Of a table."""
        return ('class', 'boxes', 'share')

    def rows(self) -> 'Iterable[tuple[str, ...]]':
        """Of a table, one each class."""
        for name, number in self.by_class.items():
            yield name, str(number), f'{number / max(self.used, 1):.1%}'

    def __str__(self) -> str:
        text = f'{self.used_images} of {self.images} images, {self.used} of {self.boxes} boxes are used'
        lost = [f'{number} {reason}' for reason, number in self.dropped.items() if number]
        return f'{text}: {", ".join(lost)}' if lost else text


def read_coco(path: str, annotated: bool = True) -> dict[str, Any]:
    """Read a COCO file.

    Args:
        path: The file.
        annotated: Whether it has to hold annotations; a test set's without any gets an empty list.

    Raises:
        ValueError: It is no JSON in UTF-8, or lacks a list; the message names the file.
    """
    with open(path, 'rb') as file:
        raw = file.read()
    if raw.startswith((b'\xef\xbb\xbf', b'\xff\xfe', b'\xfe\xff')):
        raise ValueError(
            f'{path} begins with a byte order mark, which pycocotools cannot read: save it as UTF-8 without'
        )
    try:
        found = json.loads(raw.decode('utf-8'))
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is not encoded in UTF-8 (byte {error.start}): save it as UTF-8') from error
    except json.JSONDecodeError as error:
        cut = ', its end is missing' if error.pos >= len(raw.decode('utf-8').rstrip()) - 1 else ''
        raise ValueError(f'{path} is no JSON{cut}: {error}') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} holds a {type(found).__name__}, not the dict of a COCO file')
    if not annotated:
        found.setdefault('annotations', [])
    for name in ('images', 'annotations', 'categories'):
        if not isinstance(found.get(name), list) or not all(isinstance(entry, dict) for entry in found[name]):
            raise ValueError(f'{path} is no COCO file: it needs {name!r}, a list of dicts')
    return found


def check_structure(path: str, found: Mapping[str, Any], evaluated: bool) -> None:
    """Are all entries there that MMDetection and pycocotools read?

    Args:
        path: The file, for messages.
        found: What it holds.
        evaluated: Whether pycocotools evaluates on it; it needs ``iscrowd``.

    Raises:
        ValueError: They are not, or ids repeat, or annotations belong to no image; the message names file and entry.
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
    if not found['annotations']:
        raise ValueError(f'{path} holds no annotations')
    names = Counter(category['name'] for category in found['categories'])
    if doubled := [name for name, number in names.items() if number > 1]:
        raise ValueError(f'{path}: several categories have the name {doubled[0]!r}: give each category its own')
    images = {image['id'] for image in found['images']}
    strangers = [entry['image_id'] for entry in found['annotations'] if entry['image_id'] not in images]
    if len(strangers) == len(found['annotations']):
        example = next(iter(images), None)
        raise ValueError(
            f'{path}: no annotation belongs to an image: image_id is {strangers[0]!r}, the ids of images are like '
            f'{example!r}; both must be numbers, or both strings'
        )


def check_order(path: str, found: Mapping[str, Any], classes: Sequence[str], key: str) -> None:
    """Are the classes those of the file, in its order? MMDetection numbers them as the file does.

    Raises:
        ValueError: They are not.
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
            f'{tuple(in_order)}, and MMDetection numbers classes by the file: write them in its order'
        )


def count_boxes(found: Mapping[str, Any], classes: Sequence[str]) -> BoxCount:
    """Count what MMDetection's ``CocoDataset`` uses of a file whose structure is right."""
    sizes = {image['id']: (image['width'], image['height']) for image in found['images']}
    names = {category['id']: category['name'] for category in found['categories']}
    dropped = dict.fromkeys(
        [
            'without an image',
            'without a category',
            'of categories that metainfo.classes leaves out',
            'outside their image',
            'smaller than a pixel',
            'with an area of 0',
            "marked 'ignore'",
        ],
        0,
    )
    by_class = dict.fromkeys(classes, 0)
    seen, beyond = set(), 0
    for entry in found['annotations']:
        size, name = sizes.get(entry['image_id']), names.get(entry['category_id'])
        if size is None:
            reason = 'without an image'
        elif name is None:
            reason = 'without a category'
        elif name not in by_class:
            reason = 'of categories that metainfo.classes leaves out'
        elif entry.get('ignore'):
            reason = "marked 'ignore'"
        else:
            reason = _geometry(entry, size)
        if reason:
            dropped[reason] += 1
        else:
            by_class[name] += 1
            x, y, width, height = entry['bbox']
            beyond += x + width > size[0] + 1 or y + height > size[1] + 1
            seen.add(entry['image_id'])
    used = sum(by_class.values())
    return BoxCount(len(found['images']), len(seen), len(found['annotations']), used, by_class, dropped, beyond)


def _geometry(entry: Mapping[str, Any], size: tuple[float, float]) -> str:
    """Why MMDetection drops a box, '' if it does not."""
    x, y, width, height = entry['bbox']
    if width < 1 or height < 1:
        return 'smaller than a pixel'
    if min(x + width, size[0]) <= max(x, 0) or min(y + height, size[1]) <= max(y, 0):
        return 'outside their image'
    return 'with an area of 0' if entry['area'] <= 0 else ''


def check_counts(path: str, counts: BoxCount, key: str) -> list[str]:
    """Warnings if boxes are lost without being left out on purpose, or many reach beyond their images.

    Raises:
        ValueError: None is used.
    """
    if not counts.used:
        hint = ''
        if counts.dropped['smaller than a pixel'] == counts.boxes:
            hint = '. Are they divided by the image size? COCO has pixels'
        raise ValueError(f'{path} ({key}): {counts}{hint}')
    lost = counts.boxes - counts.used - counts.dropped['of categories that metainfo.classes leaves out']
    warnings = [f'{path} ({key}): {counts}'] if lost else []
    if counts.beyond > _MANY * counts.used:
        warnings.append(
            f'{path} ({key}): {counts.beyond} of {counts.used} boxes reach beyond their image. Are they '
            '[x1, y1, x2, y2]? COCO has [x, y, width, height]'
        )
    return warnings


def check_masks(path: str, found: Mapping[str, Any]) -> None:
    """Has every annotation a mask, as Mask R-CNN needs?

    Raises:
        ValueError: One has none, or a polygon of fewer than three points.
    """
    for index, entry in enumerate(found['annotations']):
        mask = entry.get('segmentation')
        where = f'{path}: annotations[{index}] (id {entry["id"]!r})'
        if not mask:
            raise ValueError(
                f'{where} has no segmentation, and the training pipeline loads masks (with_mask=True): leave the '
                'annotation out, or train without masks'
            )
        if isinstance(mask, Mapping):
            if not {'size', 'counts'} <= mask.keys():
                raise ValueError(f"{where}: segmentation is a dict without 'size' and 'counts', no run-length encoding")
            continue
        for polygon in mask:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                length = len(polygon) if isinstance(polygon, Sequence) else polygon
                raise ValueError(
                    f'{where}: a polygon needs three points or more, [x1, y1, x2, y2, x3, y3, ...], and this has '
                    f'{length} numbers'
                )


def image_files(found: Mapping[str, Any], folder: str) -> Iterable[tuple[str, tuple[int, int]]]:
    """Path and (width, height) of each image, as the file has them."""
    for image in found['images']:
        yield osp.join(folder, image['file_name']), (image['width'], image['height'])
