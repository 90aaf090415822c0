"""Reading and checking checkpoint files."""

import ast
import os.path as osp
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader


def trained_config(checkpoint: Mapping) -> ConfigDict:
    """Return what can be parsed of the config that a Runner wrote into a checkpoint, without executing it.

    Args:
        checkpoint: The content of the file.

    Returns:
        The variables whose values consist of literals and ``dict(...)``, as MMEngine writes them; may be empty.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    found = ConfigDict()
    try:
        statements = ast.parse(text if isinstance(text, str) else '').body
    except SyntaxError:
        return found
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                found[statement.targets[0].id] = _value(statement.value)
            except ValueError:
                continue  # a function or a name, not needed here
    return found


def _value(node: ast.expr | None) -> Any:
    """Return the value of a literal, including ``dict(key=literal)``; raise a ValueError for anything else."""
    if node is None:
        raise ValueError('a dict unpacked into another is not a literal')
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        # Keys that are not identifiers are in a dict of their own, dict({'backbone.auxiliary': ...}).
        found: dict[Any, Any] = {}
        for value in map(_value, node.args):
            found |= value if isinstance(value, Mapping) else dict(value)
        return found | {keyword.arg: _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def check_checkpoint_file(path: 'str | None', where: str) -> None:
    """Check that a checkpoint exists, before anything is built.

    Args:
        path: A file, or a URL, which is left to MMEngine; None passes.
        where: The flag or config key that names it, for the message.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    if path is not None and '://' not in path and not osp.isfile(osp.expanduser(path)):
        raise FileNotFoundError(f'{where}: there is no checkpoint {path}')


def read_checkpoint(path: 'str | Path') -> dict:
    """Read a checkpoint to the CPU.

    Raises:
        ValueError: The file is not a checkpoint, or has an object of a type that PyTorch does not load.
    """
    try:
        found = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    except (UnpicklingError, RuntimeError, EOFError, LookupError) as error:  # errors of unpickling an arbitrary file
        unknown = re.search(r'GLOBAL (\S+)', str(error))
        if unknown:
            raise ValueError(
                f'{path} holds an object of type {unknown[1]}, which PyTorch does not load from a file: save it '
                'without this object, or allow the type with torch.serialization.add_safe_globals'
            ) from error
        raise ValueError(f'{path} is not a checkpoint that PyTorch can read') from error
    if not isinstance(found, dict):
        raise ValueError(f'{path} is not a checkpoint: it holds a {type(found).__name__}')
    return found


def check_fits(model: BaseModel, checkpoint: str) -> None:
    """Check that a checkpoint has all weights of a model except auxiliary networks; MMEngine ignores missing ones.

    Raises:
        ValueError: Weights are missing or have other shapes.
    """
    while hasattr(model, 'module'):  # DDP, test-time augmentation
        model = model.module
    found = read_checkpoint(checkpoint)
    found = {name.removeprefix('module.'): value for name, value in found.get('state_dict', found).items()}
    way_out = 'use the config that it was trained with'
    try:
        missing = model.load_state_dict(found, strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} does not fit the config's model, {way_out}: {error}") from error
    if not found.keys() & model.state_dict().keys():
        raise ValueError(f"{checkpoint} holds no weights of the config's model: does it hold only a backbone?")
    if missing:
        raise ValueError(
            f"{checkpoint} does not fit the config's model, {way_out}: it lacks {len(missing)} of the entries "
            f'({", ".join(missing[:3])}{", ..." if len(missing) > 3 else ""})'
        )


def check_load_from(model: BaseModel, checkpoint: str) -> None:
    """Check that a checkpoint for ``load_from`` has weights of the model; MMEngine would ignore a mismatch.

    Raises:
        ValueError: It has none.
    """
    while hasattr(model, 'module'):  # DDP
        model = model.module
    found = read_checkpoint(checkpoint)
    names = {name.removeprefix('module.') for name in found.get('state_dict', found)}
    if not names & model.state_dict().keys():
        raise ValueError(
            f"{checkpoint} holds no weights of the config's model (load_from). For a file with only a backbone, set "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...)"
        )


def check_whole(path: str, work_dir: str, siblings: str = '*.pth') -> None:
    """Check that a checkpoint exists and is intact.

    Args:
        path: The file.
        work_dir: A folder with other checkpoints, in addition to the file's own folder.
        siblings: Pattern of their names.

    Raises:
        RuntimeError: It is missing or damaged; the message names the latest intact one.
    """
    fault = fault_of(path)
    if fault is None:
        return
    folders = {Path(path).expanduser().parent} if path else set()
    folders.add(Path(work_dir))
    others = [other for folder in folders for other in folder.glob(siblings) if str(other) != path]
    others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
    good = next((other for other in others if fault_of(str(other)) is None), None)
    way = f'There is no other checkpoint in {", ".join(map(str, sorted(folders)))}; train without --resume.'
    if good is not None:
        way = f'The latest intact one is {good}: resume from it (--resume {good}, or load_from in the config).'
    named = f'the checkpoint {path}' if path else f'{work_dir}/last_checkpoint names no checkpoint: it'
    raise RuntimeError(f'{named} {fault} and cannot be resumed from. {way}')


def fault_of(path: str) -> str | None:
    """Return what is wrong with a checkpoint file, for a message; None if it is intact."""
    if not path:
        return 'is empty'
    path = osp.expanduser(path)
    if not osp.isfile(path):
        return 'does not exist'
    with open(path, 'rb') as file:
        start = file.read(2)
    if start == b'\x80\x02':
        return None  # the format of torch < 1.6, which has no checksums
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            torch.load(path, map_location='cpu', mmap=True, weights_only=True)
    except UnpicklingError:
        return None  # intact, but with classes that the loader must judge
    except Exception as error:  # a damaged archive directory may cause any error
        return f'is damaged ({error})'
    return None if damaged is None else f'is damaged (checksum of {damaged})'
