"""Draw the peaks measured on a GPU, the picture at the top of README.md.

python docs/memory_picture.py docs/images/memory.png
"""

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BENCHMARKS = Path(__file__).parent / 'benchmarks'
MODELS = {
    'DeepLabV3 R101, 512x1024': 'deeplabv3_r101_manpp_cityscapes-2x512x1024-float32.json',
    'RetinaNet R50, 800x1333': 'retinanet_r50_manpp_lean_coco-2x800x1333-float32.json',
    'Faster R-CNN R50, 800x1333': 'faster_rcnn_r50_manpp_lean_coco-2x800x1333-float32.json',
}
WAYS = {
    'end_to_end': ('end-to-end', '#8c959f'),
    'exact': ('--memory: exact gradients', '#0969da'),
    'local': ('--method manpp: block-local', '#1a7f37'),
}


def main(path: Path) -> None:
    figure = Figure(figsize=(9, 3.4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, name in enumerate(MODELS.values()):
        modes = json.loads((BENCHMARKS / name).read_text())['modes']
        for place, (mode, (label, colour)) in enumerate(WAYS.items()):
            gigabytes = modes[mode]['peak_bytes'] / 1e9
            bar = axes.barh(row + 0.27 * (place - 1), gigabytes, 0.25, color=colour, label=label if row == 0 else None)
            share = modes[mode]['peak_bytes'] / modes['end_to_end']['peak_bytes']
            axes.bar_label(
                bar, [f'{gigabytes:.1f} GB' + ('' if mode == 'end_to_end' else f' ({share:.0%})')], padding=3
            )
    axes.set_yticks(range(len(MODELS)), list(MODELS))
    axes.invert_yaxis()
    axes.set_xlabel('peak memory of activations and gradients, two images, float32, one H100')
    axes.set_xlim(0, 9.6)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(loc='lower right', frameon=False)
    figure.savefig(path, dpi=130)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
