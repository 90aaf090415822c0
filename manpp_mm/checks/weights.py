"""Checks of the weights that a model starts from."""

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from mmengine.config import Config
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from torch import hub

from ..checkpoint_file import fault_of


def weights_of(config: Config) -> Iterator[tuple[str, str]]:
    """Yield config key and address (file or URL) of the weights that a model starts from."""
    yield from _checkpoints(config.model, 'model')
    if config.get('load_from'):
        yield 'load_from', config.load_from


def _checkpoints(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name in ('checkpoint', 'pretrained') and isinstance(value, str):
                yield f'{key}.{name}', value
            else:
                yield from _checkpoints(value, f'{key}.{name}')
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            yield from _checkpoints(value, f'{key}.{index}')


def cached_file(address: str) -> 'str | None':
    """Return where PyTorch caches a download from an address, None for a file or an unknown address."""
    scheme, _, name = address.partition('://')
    if scheme in ('torchvision', 'modelzoo'):
        address = get_torchvision_models().get(name, '')
    elif scheme in ('open-mmlab', 'openmmlab'):
        address = get_external_models().get(name, '')
    if not address.startswith(('http://', 'https://')):
        return None
    return osp.join(hub.get_dir(), 'checkpoints', osp.basename(urlparse(address).path))


def check_weights(config: Config) -> None:
    """Check the weights that a model starts from: local files and cached downloads.

    Raises:
        FileNotFoundError: A local file does not exist.
        ValueError: A downloaded file is damaged; the message names it.
    """
    for key, address in weights_of(config):
        if not address:
            raise ValueError(f'{key} is empty: set it to the file to start from with --cfg-options {key}=FILE')
        if '://' not in address:
            if not osp.isfile(osp.expanduser(address)):
                raise FileNotFoundError(f'{address} does not exist ({key})')
            continue
        kept = cached_file(address)
        if kept is not None and osp.isfile(kept) and (fault := fault_of(kept)):
            raise ValueError(f'{kept}, fetched before for {key}={address!r}, {fault}: delete it to download it again')


def not_fetched(config: Config, error: Exception) -> str:
    """Return a message that names the weights that could not be downloaded, and a fix."""
    lacking = [
        (key, address)
        for key, address in weights_of(config)
        if (kept := cached_file(address)) is not None and not osp.isfile(kept)
    ]
    if not lacking:
        return str(error)
    key, address = lacking[0]
    return (
        f'{key}={address!r} could not be fetched ({error}). Without a network, download it elsewhere and put it at '
        f'{cached_file(address)}, or set --cfg-options {key}=FILE; to train from scratch, set its init_cfg '
        'to None, and model.backbone.frozen_stages to -1: a frozen front would stay random'
    )
