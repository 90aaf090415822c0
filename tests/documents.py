"""What the documents show: configs and commands, in indented blocks."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / 'README.md', ROOT / 'data/README.md', *sorted((ROOT / 'docs').glob('*.md'))]
_COMMAND = re.compile(r'(?:[A-Z_]+=\S+ )?(?:python|bash|make|pip|mim|tensorboard|source|csCreate\w+)\b')


def blocks(text: str) -> list[str]:
    """The indented blocks of a document, without their indentation; a blank line inside does not end one."""
    found = re.findall(r'^    .+\n(?:(?:    .*)?\n)*', text, re.M)
    return [re.sub(r'^    ', '', block, flags=re.M).strip() + '\n' for block in found]


def configs(text: str) -> list[str]:
    """The blocks that are whole configs."""
    return [block for block in blocks(text) if block.startswith('_base_ = ')]


def commands(text: str) -> list[list[str]]:
    """The shell commands in the blocks, in words; environment variables set before one are left out."""
    lines = '\n'.join(blocks(text)).replace('\\\n', ' ').splitlines()
    found = [shlex.split(line) for line in lines if _COMMAND.match(line)]
    return [words[1:] if re.fullmatch(r'[A-Z_]+=.*', words[0]) else words for words in found]
