"""Check that the heads of a model have the data set's classes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..registered import kind_of
from .names import listed

_OTHER_CLASSES = ('rpn_head', 'semantic_head')
"""Heads that separate objects from background, or have their own classes."""

_OTHER_TYPES = ('STDCHead', 'SideAdapterCLIPHead')
"""Heads that predict edges, or classes given as words."""

_OTHER_MODELS = ('language_model', 'tracker', 'reid')
"""Keys of models that compare with text, or track."""


def compares_classes(model: Mapping[str, Any]) -> bool:
    """Return whether a model's heads have the classes of its data sets; models that use text or track do not."""
    return not any(key in model for key in _OTHER_MODELS)


def head_classes(model: Mapping[str, Any], prefix: str = 'model') -> Iterator[tuple[str, int]]:
    """Yield config key and ``num_classes`` of each head that must have the data set's classes."""
    for name, value in model.items():
        key = f'{prefix}.{name}'
        entries = enumerate(value) if isinstance(value, Sequence) and not isinstance(value, str) else [(None, value)]
        for index, entry in entries:
            if not isinstance(entry, Mapping) or name in _OTHER_CLASSES:
                continue
            here = key if index is None else f'{key}.{index}'
            if kind_of(entry) in _OTHER_TYPES:
                continue
            if name.endswith('head') and isinstance(entry.get('num_classes'), int):
                yield f'{here}.num_classes', entry['num_classes']
            yield from head_classes(entry, here)


def check_head_classes(model: Mapping[str, Any], classes: Sequence[str], key: str) -> None:
    """Compare the heads of a model with the classes of a data set.

    Args:
        model: The model's config.
        classes: The data set's classes.
        key: The data set's config key.

    Raises:
        ValueError: A head has another number of classes; the message names its key.
    """
    if not compares_classes(model):
        return
    found = list(head_classes(model))
    wrong = [(head, number) for head, number in found if number != len(classes)]
    if wrong:
        heads = listed(f'{head}={number}' for head, number in wrong)
        raise ValueError(f'{heads}, but {key} has {len(classes)} classes: {listed(classes)}')


def check_splits_agree(found: Mapping[str, Sequence[str]]) -> None:
    """Check that all splits have the same classes in the same order; labels are indices into them.

    Args:
        found: The classes of each data set by its config key.

    Raises:
        ValueError: Two splits differ.
    """
    (first, classes), *others = found.items()
    for key, other in others:
        if list(other) != list(classes):
            raise ValueError(
                f'{key} has the classes {listed(other)}, but {first} has {listed(classes)}: labels are indices into '
                'this list, so set the same metainfo.classes'
            )
