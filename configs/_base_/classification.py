# Variables that make an MMPretrain classifier with a ResNet block-local. A config places them:
#
#     _base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', 'manpp_mm::_base_/classification.py']
#     custom_imports = dict(imports=['manpp_mm'], allow_failed_imports=False)
#     model = dict(backbone=_base_.manpp_backbone)
#     custom_hooks = _base_.manpp_hooks
#     default_hooks = _base_.manpp_default_hooks
#     optim_wrapper = dict(paramwise_cfg=_base_.manpp_paramwise)

_base_ = './local_learning.py'

# Two forms of the part after the branches. DGL's: three 1x1 convolutions, pooling, an MLP.
manpp_mlp = dict(
    projection=[dict(out_channels=128, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))] * 3,
    head=dict(type='StackedLinearClsHead', num_classes=1000, mid_channels=[512, 512, 512], norm_cfg=dict(type='BN1d')),
)
# InfoPro's: two 3x3 convolutions, pooling, two linear layers. It costs several times as much.
manpp_convolutional = dict(
    projection=[dict(out_channels=128, kernel_size=3, norm_cfg=dict(type='BN'), act_cfg=dict(type='ReLU'))] * 2,
    head=dict(type='StackedLinearClsHead', num_classes=1000, mid_channels=[128]),
)

# Found by tools/fit.py for a ResNet-50 on 32 images of 224x224: the lowest peak, at 1.05 of the work.
manpp_backbone = dict(
    type='LocalResNet',
    cuts=[(0, 0), (0, 2), (1, 2)],
    local_blocks=None,
    # Auxiliary networks at stride 16 are cheap. CIFAR's images need a finer stride: resnet32_manpp_cifar10.py.
    auxiliary=dict(stride=16, **manpp_mlp),
)
