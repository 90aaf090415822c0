# Location of COCO: the environment variable COCO_ROOT, or data/coco. MMDetection's own configs expand `data_root` when
# they are read, so a config places this variable wherever they did (see ../faster_rcnn_r50_manpp_coco.py).
coco_root = '{{$COCO_ROOT:data/coco}}/'
