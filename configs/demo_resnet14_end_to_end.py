# ResNet-14 on small drawn images, trained end-to-end: what demo_resnet14_manpp.py stands beside.
_base_ = './_base_/demo_classification.py'
