"""Checks of what the loaders read. ``check_labels`` needs mmseg."""
