"""Whole sets of images on their way to results: opened, read once, compared by every metric."""
