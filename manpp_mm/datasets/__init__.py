"""Data sets and transforms. ``check_labels`` needs mmseg, ``mosaics`` mmpretrain."""
