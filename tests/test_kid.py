"""The KID in several blocks, its standard error, and edge cases. tests/peers/test_cleanfid.py tests clean-fid's KID."""

import numpy as np
import pytest
from tolerances import KERNEL_MEANS

from fastfid import _core
from fastfid.metrics import kernel, mmd
from fastfid.metrics.base import Sample
from fastfid.metrics.rows import FeatureRows


def rows(n, d, seed, shift=0.0):
    return (np.random.default_rng((seed, n, d)).standard_normal((n, d)) + shift).astype(np.float32)


def test_blocks_are_the_whole(monkeypatch):
    x, y = rows(1000, 8, 1), rows(700, 8, 2)
    monkeypatch.setattr(mmd, "_BLOCK", 300)
    np.testing.assert_allclose(mmd._sums_within(x), _core.kernel_sums_within(x), rtol=KERNEL_MEANS)
    for ours, whole in zip(mmd._sums_across(x, y), _core.kernel_sums(x, y), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=KERNEL_MEANS)


def jackknife(x, y):
    """The standard error from the value without each row in turn."""
    parts = []
    for sample, value in (
        (x, lambda rest: mmd.unbiased_mmd2(rest, y)[0]),
        (y, lambda rest: mmd.unbiased_mmd2(x, rest)[0]),
    ):
        values = np.array([value(np.delete(sample, i, axis=0)) for i in range(len(sample))])
        parts.append((len(sample) - 1) * values.var())
    return np.sqrt(sum(parts))


@pytest.mark.parametrize(("m", "n"), [(3, 3), (4, 9), (30, 20)])
def test_the_standard_error_is_the_jackknifes(m, n):
    x, y = rows(m, 6, 1), rows(n, 6, 2, 0.3)
    assert mmd.unbiased_mmd2(x, y)[1] == pytest.approx(jackknife(x, y), rel=KERNEL_MEANS)


def test_two_rows_have_no_standard_error():
    assert mmd.unbiased_mmd2(rows(2, 4, 1), rows(9, 4, 2))[1] is None


def test_features_that_are_too_large():
    def sample(name, scale):
        kept = FeatureRows(2)
        kept.update({"features": rows(9, 2, 1) * np.float32(scale)})
        return Sample(name, {}, kept)

    result = kernel.KernelInceptionDistance().result(sample("a", 1e35), sample("b", 1.0))
    assert result.standard_error is None
    assert result.no_standard_error == "the features are too large for a standard error"
