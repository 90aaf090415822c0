"""Run a checkpoint on an image or a folder; write painted images, label maps (segmentation) and a JSON file.

manpp infer data/demo/val2017 work_dirs/demo/epoch_9.pth --out-dir found
"""

import argparse
from collections import Counter
from collections.abc import Sequence

from ..cli import errors
from ..inference import predict


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('inputs', help='an image or a folder of images')
    parser.add_argument('weights', help='checkpoint, as trained or published')
    parser.add_argument('--config', help="the model's config (default: the one in the checkpoint)")
    parser.add_argument('--out-dir', default='outputs', help='folder for vis/, label_maps/ and predictions.json')
    parser.add_argument('--score-threshold', type=float, default=0.3, help='minimum score of a detection')
    parser.add_argument('--device', help='device to run on (default: a GPU if there is one)')
    errors.add_traceback_argument(parser)
    return parser.parse_args(argv)


def describe(prediction: 'list | dict') -> str:
    """Describe a prediction in one line."""
    if isinstance(prediction, dict):
        return ', '.join(f'{name} {share:.0%}' for name, share in sorted(prediction.items(), key=lambda item: -item[1]))
    if prediction and 'bbox' not in prediction[0]:
        return ', '.join(f'{found["label"]} {found["score"]:.0%}' for found in prediction)
    return ', '.join(f'{n} {label}' for label, n in Counter(box['label'] for box in prediction).items()) or 'nothing'


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    for image, prediction in predict(
        args.inputs, args.weights, args.out_dir, args.config, args.score_threshold, args.device
    ):
        print(f'{image.name}: {describe(prediction)}', flush=True)
