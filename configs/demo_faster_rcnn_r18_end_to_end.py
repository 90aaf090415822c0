# The end-to-end twin of demo_faster_rcnn_r18_manpp.py: same data, schedule and seed.
_base_ = './_base_/demo_detection.py'
