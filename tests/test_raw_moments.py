"""Raw sums in torchmetrics' layout: they are correct for any number of threads, and an invalid batch adds nothing."""

import numpy as np
import pytest
from tolerances import ANOTHER_ORDER

from fastfid import _core


@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 3), (40, 256), (7, 257), (300, 600)])
def test_raw_moments_are_the_sums(n, d):
    rng = np.random.default_rng(n + d)
    total, cross = np.zeros(d), np.zeros((d, d))
    batches = [rng.standard_normal((n, d)) + 3, rng.standard_normal((2 * n, d))]
    for batch in batches:
        _core.add_raw_moments(batch, total, cross)
    rows = np.concatenate(batches)
    assert (np.abs(total - rows.sum(axis=0)) <= ANOTHER_ORDER * np.abs(rows).sum(axis=0)).all()
    # float64 dot products of 3 n terms, each bounded by the product of its columns' norms.
    bound = np.sqrt(np.outer((rows**2).sum(axis=0), (rows**2).sum(axis=0)))
    assert (np.abs(cross - rows.T @ rows) <= 3 * n * np.finfo(float).eps * bound).all()


def test_integers_add_up_exactly():
    rows = np.random.default_rng(0).integers(-50, 50, (90, 300)).astype(float)
    total, cross = np.full(300, 5.0), np.full((300, 300), -2.0)
    _core.add_raw_moments(rows, total, cross)
    np.testing.assert_array_equal(total, rows.sum(axis=0) + 5)
    np.testing.assert_array_equal(cross, rows.T @ rows - 2)


def test_bits_do_not_depend_on_threads():
    rows = np.random.default_rng(1).standard_normal((64, 520))
    results = []
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            total, cross = np.zeros(520), np.zeros((520, 520))
            _core.add_raw_moments(rows, total, cross)
            results.append((total.tobytes(), cross.tobytes()))
    finally:
        _core.set_num_threads(0)
    assert len(set(results)) == 1


def test_no_rows_add_nothing():
    total, cross = np.ones(4), np.ones((4, 4))
    _core.add_raw_moments(np.empty((0, 4)), total, cross)
    assert total.sum() == 4
    assert cross.sum() == 16


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_is_added_from_a_batch_with_nan(bad):
    rows = np.ones((6, 4))
    rows[3, 2] = bad
    total, cross = np.ones(4), np.ones((4, 4))
    with pytest.raises(_core.NumericalError, match="row 3"):
        _core.add_raw_moments(rows, total, cross)
    assert total.sum() == 4
    assert cross.sum() == 16


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((np.ones((3, 4), np.float32), np.zeros(4), np.zeros((4, 4))), TypeError),
        ((np.ones((3, 8))[:, ::2], np.zeros(4), np.zeros((4, 4))), TypeError),
        (([[1.0]], np.zeros(1), np.zeros((1, 1))), TypeError),
        ((np.ones(4), np.zeros(4), np.zeros((4, 4))), TypeError),
        ((np.ones((3, 4)), np.zeros(5), np.zeros((4, 4))), ValueError),
        ((np.ones((3, 4)), np.zeros(4), np.zeros((4, 5))), ValueError),
        ((np.ones((3, 0)), np.zeros(0), np.zeros((0, 0))), ValueError),
    ],
)
def test_bad_arguments(arguments, error):
    with pytest.raises(error):
        _core.add_raw_moments(*arguments)


def test_a_read_only_state_is_refused():
    total = np.zeros(4)
    total.flags.writeable = False
    with pytest.raises(ValueError, match=r"read.?only|writeable"):
        _core.add_raw_moments(np.ones((3, 4)), total, np.zeros((4, 4)))
