"""Checks of the label maps of a segmentation data set."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from .images import in_parallel, read_header, refuse_empty, sample
from .names import listed

IGNORED = 255
"""The label that MMSegmentation ignores in loss and metric by default."""


@dataclass
class LabelCount:
    """The content of label maps.

    Attributes:
        pairs: Number of images with a label map.
        read: Number of label maps read.
        stored: Pixels by value, as stored in the files.
        trained: Pixels by label, after ``reduce_zero_label`` and the data set's ``label_map``.
        first: The first label map that contains each label.
        classes: The data set's classes.
        sizes: (width, height) of each image.
    """

    pairs: int
    read: int
    stored: Counter = field(default_factory=Counter)
    trained: Counter = field(default_factory=Counter)
    first: dict[int, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def columns(self) -> tuple[str, ...]:
        """Return the column names of a table."""
        return ('label', 'class', 'pixels', 'share')

    def rows(self) -> 'Iterable[tuple[str, ...]]':
        """Yield the rows of a table, one per label."""
        for label in sorted({*self.trained, *range(len(self.classes))}):
            number = self.trained[label]
            yield (
                str(label),
                _class_name(label, self.classes),
                str(number),
                f'{number / max(self.trained.total(), 1):.1%}',
            )

    def __str__(self) -> str:
        read = '' if self.read == self.pairs else f', {self.read} of them read'
        return f'{self.pairs} images with label maps{read}'


def check_suffix(folder: 'str | Path', suffix: str, label_suffixes: Sequence[str], key: str) -> 'str | None':
    """Return a warning that counts the images of a folder with a suffix that the data set does not read.

    Args:
        folder: The folder of the images.
        suffix: The suffix that the data set reads.
        label_suffixes: The suffixes of label maps in the same folder.
        key: The data set's config key.
    """
    others = Counter(
        path.suffix
        for path in Path(folder).rglob('*')
        if path.suffix.lower() in Image.registered_extensions() and not path.name.endswith((suffix, *label_suffixes))
    )
    if not others:
        return None
    used = sum(1 for _ in Path(folder).rglob(f'*{suffix}'))
    listed_others = listed(f'{number} *{name}' for name, number in others.most_common())
    return (
        f'{folder}: {used} of {used + others.total()} images are used, those that end in {suffix!r} '
        f'({key}.img_suffix); not used: {listed_others}'
    )


def check_pairs(pairs: Sequence[Mapping[str, Any]], key: str) -> None:
    """Check that every image has a label map.

    Args:
        pairs: The data set's list, with ``img_path`` and ``seg_map_path``.
        key: The data set's config key.

    Raises:
        FileNotFoundError: A label map is missing; the message counts them.
    """
    lacking = [pair for pair in pairs if not Path(pair['seg_map_path']).is_file()]
    if lacking:
        raise FileNotFoundError(
            f'{len(lacking)} of {len(pairs)} images have no label map, the first is {lacking[0]["img_path"]}: '
            f'{lacking[0]["seg_map_path"]} does not exist ({key}.seg_map_suffix)'
        )


def count_labels(pairs: Sequence[Mapping[str, Any]], reduce_zero_label: bool, key: str) -> LabelCount:
    """Count the labels in label maps, and check that each map has the size of its image.

    Raises:
        ValueError: A file cannot be read, has colors, or differs in size from its image.
    """
    looked_at = sample(pairs)
    found = LabelCount(len(pairs), len(looked_at))
    for pair, (size, values) in zip(looked_at, in_parallel(_read, looked_at, f'label maps of {key}'), strict=True):
        found.sizes.append(size)
        found.stored.update(values)
        for value, number in values.items():
            label = trained_label(value, reduce_zero_label, pair.get('label_map'))
            found.trained[label] += number
            found.first.setdefault(label, pair['seg_map_path'])
    return found


def trained_label(value: int, reduce_zero_label: bool, label_map: 'Mapping[int, int] | None' = None) -> int:
    """Return the label to which MMSegmentation's ``LoadAnnotations`` maps a stored value."""
    if reduce_zero_label:
        value = IGNORED if value in (0, IGNORED) else value - 1
    return (label_map or {}).get(value, value)


def _read(pair: Mapping[str, Any]) -> tuple[tuple[int, int], dict[int, int]]:
    """Return (width, height) of a pair, and its pixels by value."""
    path = pair['seg_map_path']
    image = read_header(pair['img_path'])
    refuse_empty(path)
    try:
        with Image.open(path) as picture:
            labels, kind = np.array(picture), picture.format
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f'{path} is not a label map that can be read: {error}') from error
    if kind == 'JPEG':
        raise ValueError(f'{path} is a JPEG, whose compression changes labels: store label maps as PNG')
    labels = labels.squeeze()
    check_shape(path, labels, image.path, image.loaded[::-1])
    if labels.max(initial=0) > IGNORED:
        raise ValueError(f'{path} holds the value {labels.max()}, but MMSegmentation reads labels as 8 bits')
    counts = np.bincount(labels.astype(np.uint8).ravel())
    return image.loaded, {value: int(number) for value, number in enumerate(counts) if number}


def check_shape(path: str, labels: np.ndarray, image: str, size: Sequence[int]) -> None:
    """Check that a label map has one channel and the size of its image.

    Args:
        path: The label map's file.
        labels: Its content.
        image: The image's file.
        size: The image's height and width.

    Raises:
        ValueError: The label map has colors or another size.
    """
    if labels.ndim != 2:
        raise ValueError(
            f'{path} is a picture with {labels.shape[-1]} color channels; a label map has one channel with the class '
            'of each pixel: 0, 1, 2, ... (data/README.md)'
        )
    if labels.shape != tuple(size):
        raise ValueError(
            f'{path} is {labels.shape[0]}x{labels.shape[1]} pixels (height x width), but its image {image} is '
            f'{size[0]}x{size[1]}'
        )


def check_values(
    found: LabelCount, classes: Sequence[str], reduce_zero_label: bool, ignore_index: int, key: str, trains: bool = True
) -> list[str]:
    """Compare labels with the classes.

    Args:
        found: The content of the label maps.
        classes: The data set's classes.
        reduce_zero_label: The data set's.
        ignore_index: The decode head's.
        key: The data set's config key.
        trains: Whether the data set is used for training; a validation set may lack classes.

    Returns:
        Warnings about labels that ``reduce_zero_label`` shifts so that the last class is empty, and about classes that
        never occur.

    Raises:
        ValueError: A label is not a class, or two classes are stored as 0 and 255.
    """
    number = len(classes)
    if trains and not reduce_zero_label and set(found.stored) == {0, ignore_index} and number == 2:
        raise ValueError(
            f'{key}: the label maps hold only 0 and {ignore_index}, and {ignore_index} is ignored '
            f'(ignore_index): class 1 ({classes[1]}) never occurs. Store classes as 0 and 1'
        )
    wrong = sorted(label for label in found.trained if label >= number and label != ignore_index)
    if wrong:
        raise ValueError(
            f'{key}: label maps hold {listed(wrong)}, but there are {number} classes (0 to {number - 1}) and '
            f'{ignore_index} for ignored pixels; {wrong[0]} is in {found.first[wrong[0]]}. Use train ids '
            '(data/README.md), or set metainfo.classes'
        )
    if not set(found.trained) - {ignore_index}:
        raise ValueError(f'{key}: every pixel of the label maps is {ignore_index}, which is ignored')
    absent = [name for label, name in enumerate(classes) if not found.trained[label]]
    warnings = []
    if reduce_zero_label and found.stored[0] and not found.trained[number - 1]:
        became = listed(
            f'{value} -> {_with_number(trained_label(value, True), classes)}' for value in sorted(found.stored)
        )
        warnings.append(
            f'{key}.reduce_zero_label=True moves every label: {became}; class {number - 1} ({classes[-1]}) never '
            'occurs. Set it to False if 0 is a class'
        )
    elif absent:
        of = '' if found.read == found.pairs else f' in {found.read} of {found.pairs} label maps'
        warnings.append(f'{key}: {len(absent)} of {number} classes never occur{of}: {listed(absent)}')
    return warnings


def _class_name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else 'not counted'


def _with_number(label: int, classes: Sequence[str]) -> str:
    return f'{label} ({classes[label]})' if label < len(classes) else 'not counted'
