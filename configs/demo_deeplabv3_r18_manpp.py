# DeepLabV3 R18 on synthetic scenes, trained block by block in minutes on a CPU (make demo-seg).
_base_ = ['./_base_/demo_segmentation.py', './_base_/segmentation.py']
model = dict(backbone=_base_.manpp_backbone, auxiliary_head=None)
# Two blocks, cut after layer2: from scratch on so few scenes, each further block costs accuracy.
model['backbone'] |= dict(
    cuts=[(1, 1)],
    auxiliary=dict(
        projection=None,
        loss_resolution='label',  # images are small
        head=dict(type='FCNHead', num_classes=6, channels=64, num_convs=1, concat_input=False, loss_decode=_base_.loss),
    ),
)
custom_hooks = _base_.manpp_hooks
default_hooks = _base_.manpp_default_hooks
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
