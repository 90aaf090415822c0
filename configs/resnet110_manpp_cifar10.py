# ResNet-110 on CIFAR-10 in 32 local blocks, the most even division of its 54 units.
_base_ = './_base_/cifar10.py'
model = dict(backbone=dict(depth=110, local_blocks=32))
