"""Batches as they come, in a training loop: the classes `FID` and `Evaluator`."""
