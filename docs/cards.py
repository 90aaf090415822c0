"""Largest batches on cards of 8 to 24 GB, as the planner predicts them: the table of cards in README.md.

python docs/cards.py docs/cards.json
"""

import json
import sys
import warnings
from pathlib import Path

from mmengine.logging import MMLogger

from manpp_mm.compat.config_prefix import read_config
from manpp_mm.memory.budget import budget_bytes, room_in
from manpp_mm.memory.inputs import training_input
from manpp_mm.memory.predict import Predictor, Survey

MODELS = {
    'Mask R-CNN R50, 800x1333': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Mask R-CNN Swin-T, 800x1344': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'DINO R50, 800x1344': 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'DeepLabV3 R101, 512x1024': 'mmseg::deeplabv3/deeplabv3_r101-d8_4xb2-40k_cityscapes-512x1024.py',
}
CARDS = (8, 12, 16, 24)
WAYS = {
    'end-to-end': ('end_to_end',),
    '`--memory`': ('end_to_end', 'checkpointed', 'exact'),
    '`--method manpp`': ('manpp',),
}
"""Rows of the table, and the methods whose largest batch each takes."""


def main(path: Path) -> None:
    MMLogger.get_instance('mmengine', log_level='ERROR')
    warnings.simplefilter('ignore')
    found = {}
    for model, name in MODELS.items():
        config = read_config(name)
        batch, size = training_input(config)
        survey = Survey(config, batch, size)
        found[model] = dict(config=name, input=list(size), batches={way: {} for way in WAYS})
        if survey.measured:
            raise ValueError(f'{model}: other batches cannot be predicted: {survey.measured}')
        predictor = Predictor(config, batch, size, survey=survey)
        for way, methods in WAYS.items():
            ways = predictor.predictions(methods)
            if way == 'end-to-end':
                ways = ways[:1]  # upstream's own; the others checkpoint neck and heads
            for card in CARDS:
                room = room_in(budget_bytes(f'{card}GiB'))
                found[model]['batches'][way][card] = max(each.largest_batch(room, size) for each in ways)
        print(model, found[model]['batches'], flush=True)
        path.write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
