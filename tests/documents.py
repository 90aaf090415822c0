"""What the documents show: configs and commands, in fenced blocks."""

import json
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / 'README.md', ROOT / 'data/README.md', *sorted((ROOT / 'docs').glob('*.md'))]
_COMMAND = re.compile(r'(?:[A-Z_]+=\S+ )?(?:python|bash|make|pip|mim|tensorboard|source|csCreate\w+)\b')


def blocks(text: str) -> list[str]:
    """The fenced blocks of a document."""
    return [block for _, block in fenced(text)]


def fenced(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a document, each with its language."""
    return re.findall(r'^```(\w+)\n(.*?)^```$', text, re.M | re.S)


def configs(text: str) -> list[str]:
    """The blocks that are whole configs."""
    return [block for block in blocks(text) if block.startswith('_base_ = ')]


def commands(text: str) -> list[list[str]]:
    """The shell commands in the blocks, in words; environment variables set before one are left out."""
    lines = '\n'.join(block for language, block in fenced(text) if language == 'bash').replace('\\\n', ' ').splitlines()
    found = [shlex.split(line) for line in lines if _COMMAND.match(line)]
    return [words[1:] if re.fullmatch(r'[A-Z_]+=.*', words[0]) else words for words in found]


def benchmark_table(path: Path) -> str:
    """What ``tools/benchmark.py --json`` or ``tools/gpu_check.py`` wrote on a GPU, as a Markdown table.

    *Work* and *operators* are beside the first mode's; files from before these were counted lack the columns.
    """
    found = json.loads(path.read_text())
    modes = found['modes'] if 'modes' in found else found['sweep'][0]['modes']
    first = next(iter(modes.values()))
    counted = 'operators' in first
    head = ['mode', 'peak', 'ratio', 'allocated', *(['work', 'operators'] if counted else []), 'ms', 'ratio', 'spread']
    head += ['device ms', 'ratio'] if counted else []
    lines = [f'| {" | ".join(head)} |', '|---' * len(head) + '|']
    for mode, one in modes.items():
        cells = [f'`{mode}`', f'{one["peak_bytes"] / 1e6:.0f} MB', f'{one["peak_bytes"] / first["peak_bytes"]:.3f}']
        cells.append(f'{one["allocated_bytes"] / 1e6:.0f} MB')
        if counted:
            cells += [f'{one["flops"] / first["flops"]:.3f}', f'{one["operators"] / first["operators"]:.2f}']
        cells += [f'{one["step_seconds"] * 1e3:.0f}', f'{one["step_seconds"] / first["step_seconds"]:.2f}']
        cells.append(f'{one["step_seconds_spread"] * 1e3:.0f}')
        if counted:
            device = one['device_seconds']
            cells += [f'{device * 1e3:.0f}', f'{device / first["device_seconds"]:.2f}']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'
