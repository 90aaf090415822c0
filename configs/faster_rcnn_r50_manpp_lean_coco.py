# Faster R-CNN R50-FPN on COCO with local learning at its cheapest: auxiliary networks at stride 16 or coarser, and cuts
# within 2 % of the lowest peak that tools/fit.py finds for two. About the memory of a frozen backbone. It
# costs accuracy on small objects: docs/ablations.md.
_base_ = './faster_rcnn_r50_manpp_coco.py'
model = dict(backbone=dict(cuts=[(1, 2), (3, 0)], auxiliary=dict(stride=16)))
