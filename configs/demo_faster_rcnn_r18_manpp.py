# Faster R-CNN R18 on synthetic scenes, trained block by block in minutes on a CPU (make demo).
_base_ = ['./_base_/demo_detection.py', './_base_/detection.py']
custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
model = dict(backbone=_base_.manpp_backbone)
# One cut, after layer1. From scratch on so few scenes, each further block costs accuracy: its local loss, one level at
# a coarse stride, must shape the features alone.
model['backbone'] |= dict(
    cuts=[(0, 1)],
    auxiliary=dict(
        projection=dict(out_channels=64),
        head=dict(type='PaddedFCOSHead', num_classes=5, feat_channels=64, stacked_convs=1, center_sampling=True),
    ),
)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
