"""Weights that a config fetches before the first step."""

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse

from mmengine.config import Config
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from torch import hub

from ..checkpoint_file import fault_of


def weights_of(config: Config) -> Iterator[tuple[str, str]]:
    """Config key and address of the weights that a model starts from: files and addresses of the network."""
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
    """Where PyTorch keeps what it fetches from an address, None for a file or an unknown address."""
    scheme, _, name = address.partition('://')
    if scheme in ('torchvision', 'modelzoo'):
        address = get_torchvision_models().get(name, '')
    elif scheme in ('open-mmlab', 'openmmlab'):
        address = get_external_models().get(name, '')
    if not address.startswith(('http://', 'https://')):
        return None
    return osp.join(hub.get_dir(), 'checkpoints', osp.basename(urlparse(address).path))


def check_weights(config: Config) -> None:
    """Look at the weights that a model starts from: local files, and what was fetched before.

    Raises:
        FileNotFoundError: A local file does not exist.
        ValueError: A fetched file is damaged; the message names it.
    """
    for key, address in weights_of(config):
        if not address:
            raise ValueError(f'{key} is empty: set it to the file to start from, --cfg-options {key}=FILE')
        if '://' not in address:
            if not osp.isfile(osp.expanduser(address)):
                raise FileNotFoundError(f'{address} does not exist ({key})')
            continue
        kept = cached_file(address)
        if kept is not None and osp.isfile(kept) and (fault := fault_of(kept)):
            raise ValueError(f'{kept}, fetched before for {key}={address!r}, {fault}: delete it, to fetch it again')


def not_fetched(config: Config, error: Exception) -> str:
    """For a message: which weights a start without network lacks, and the way out."""
    lacking = [
        (key, address)
        for key, address in weights_of(config)
        if (kept := cached_file(address)) is not None and not osp.isfile(kept)
    ]
    if not lacking:
        return str(error)
    key, address = lacking[0]
    return (
        f'{key}={address!r} could not be fetched ({error}). Without a network fetch it elsewhere and put it at '
        f'{cached_file(address)}, or set --cfg-options {key}=FILE; from scratch: the init_cfg around it to None'
    )
