# Where Cityscapes lies: the environment variable CITYSCAPES_ROOT, or data/cityscapes. A config places this variable (see
# ../deeplabv3_r50_manpp_cityscapes.py).
cityscapes_root = '{{$CITYSCAPES_ROOT:data/cityscapes}}/'
