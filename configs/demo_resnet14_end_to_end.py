# ResNet-14 on small synthetic images, trained end-to-end: the twin of demo_resnet14_manpp.py.
_base_ = './_base_/demo_classification.py'
