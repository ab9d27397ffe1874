"""The formulas of guided-diffusion's evaluator in NumPy, in float64, for tests: none of fastfid's code."""

import numpy as np


def gaussian(rows):
    """Mean and a factor F of the covariance F Fᵀ (ddof 1) of rows."""
    return rows.mean(axis=0), (rows - rows.mean(axis=0)).T / np.sqrt(len(rows) - 1)


def frechet(a, b):
    """The distance of two Gaussians (mean, factor). The trace of the root of S T is the sum of singular values of FᵀG.

    The evaluator takes SciPy's root of S T, which is good to half the digits where there are fewer rows than dims.
    """
    difference = a[0] - b[0]
    trace = np.linalg.svd(a[1].T @ b[1], compute_uv=False).sum()
    return difference @ difference + (a[1] ** 2).sum() + (b[1] ** 2).sum() - 2 * trace


def inception_score(logits, split_size=5000):
    """The mean over consecutive blocks of exp of the mean of KL(p || mean p); the last block may be shorter."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    scores = []
    for start in range(0, len(p), split_size):
        part = p[start : start + split_size]
        scores.append(np.exp((part * (np.log(part) - np.log(part.mean(axis=0)))).sum(axis=1).mean()))
    return np.mean(scores)


def precision_recall(reference, samples, k=3):
    """Shares of the samples in a ball of the reference, and the other way round, by squared distances and ``<=``."""

    def squared(x, y):
        return ((x[:, None] - y[None]) ** 2).sum(axis=2)

    radii = [np.sort(squared(x, x), axis=1)[:, k] for x in (reference, samples)]  # number 0 is the row itself
    across = squared(reference, samples)
    precision = (across <= radii[0][:, None]).any(axis=0).mean()
    recall = (across <= radii[1][None]).any(axis=1).mean()
    return precision, recall
