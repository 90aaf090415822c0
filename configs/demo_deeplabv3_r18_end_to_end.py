# The end-to-end twin of demo_deeplabv3_r18_manpp.py, with upstream's auxiliary head: same data, schedule and seed.
_base_ = './_base_/demo_segmentation.py'
