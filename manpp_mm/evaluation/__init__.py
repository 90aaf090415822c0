"""Metrics. ``iou`` needs mmseg."""
