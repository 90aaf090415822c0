# Location of ImageNet: the environment variable IMAGENET_ROOT, or data/imagenet. A config places it as data_root of its
# loaders' data sets.
imagenet_root = '{{$IMAGENET_ROOT:data/imagenet}}/'
