# ResNet-14 on small synthetic images, trained block by block in a minute on a CPU (make demo-cls): the stem with the
# first unit, then two units a block.
_base_ = ['./_base_/demo_classification.py', './_base_/classification.py']
auxiliary = dict(stride=4, **_base_.manpp_mlp)
auxiliary['head'] |= dict(num_classes=5, mid_channels=[128])
model = dict(backbone=dict(type='LocalCIFARResNet', cuts=[(0, 0), (1, 0), (2, 0)], auxiliary=auxiliary))
custom_hooks = _base_.manpp_hooks
default_hooks = dict(checkpoint=_base_.manpp_default_hooks['checkpoint'])
optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)
