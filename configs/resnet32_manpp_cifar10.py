# ResNet-32 on CIFAR-10 in 16 local blocks: the stem and each of the 15 units.
_base_ = './_base_/cifar10.py'
model = dict(backbone=dict(depth=32, cuts=[(-1, 0), *[(stage, unit) for stage in range(3) for unit in range(5)][:-1]]))
