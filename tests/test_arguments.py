"""A key that nothing takes is an error that names it and the nearest one there is."""

import pytest
from helpers import AUXILIARY, FCOS, build, detector_config, segmentor_config


@pytest.mark.parametrize(
    ('make', 'keys', 'message'),
    [
        (detector_config, dict(auxilary={}), "model.backbone has no key 'auxilary': did you mean 'auxiliary'"),
        (segmentor_config, dict(depht=18), "model.backbone has no key 'depht': did you mean 'depth'"),
        (
            detector_config,
            dict(auxiliary=dict(AUXILIARY, projektion={})),
            "model.backbone.auxiliary has no key 'projektion': did you mean 'projection'",
        ),
        (
            detector_config,
            dict(auxiliary=dict(head=FCOS, zzz=1)),
            "model.backbone.auxiliary has no key 'zzz': it takes branches, head, loss_weight, neck, pool_branches",
        ),
        (
            detector_config,
            dict(auxiliary=dict(head=FCOS, loss_resolution='feature')),
            "model.backbone.auxiliary has no key 'loss_resolution'",  # label maps alone have one
        ),
    ],
)
def test_unknown_keys(make, keys, message):
    with pytest.raises(ValueError, match=message):
        build(make(**keys))
