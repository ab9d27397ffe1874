"""Experiments with metrics: how they answer to disturbances of the images, and to the number of images."""
