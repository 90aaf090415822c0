"""What the documents show: configs and commands, in indented blocks."""

import json
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


def benchmark_table(path: Path) -> str:
    """What ``tools/benchmark.py --json`` wrote on a GPU, as a Markdown table."""
    modes = json.loads(path.read_text())['modes']
    first = next(iter(modes.values()))
    lines = ['| mode | peak | ratio | allocated | ms | ratio | spread |', '|---|---|---|---|---|---|---|']
    for mode, found in modes.items():
        peak, allocated = found['peak_bytes'], found['allocated_bytes']
        seconds, spread = found['step_seconds'], found['step_seconds_spread']
        lines.append(
            f'| `{mode}` | {peak / 1e6:.0f} MB | {peak / first["peak_bytes"]:.3f} | {allocated / 1e6:.0f} MB | '
            f'{seconds * 1e3:.0f} | {seconds / first["step_seconds"]:.2f} | {spread * 1e3:.0f} |'
        )
    return '\n'.join(lines) + '\n'
