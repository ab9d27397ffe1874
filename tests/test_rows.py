"""Whole feature rows, and the sums of the KID's kernel over pairs of them."""

import gc
import weakref

import numpy as np
import pytest
from tolerances import ANOTHER_ORDER

from fastfid import _core
from fastfid.errors import NumericalError
from fastfid.metrics.rows import FeatureRows


def random(n, d, seed=0):
    return np.random.default_rng((seed, n, d)).standard_normal((n, d)).astype(np.float32)


def kernel(x, y):
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** 3


def kernel_of_itself(x):
    return ((x.astype(np.float64) ** 2).sum(1) / x.shape[1] + 1) ** 3


SHIFT = 1.25


# 384 rows are a strip.
@pytest.mark.parametrize(("n_x", "n_y", "d"), [(1, 1, 1), (5, 7, 3), (383, 385, 64), (768, 1, 5), (12_300, 400, 2)])
def test_kernel_sums_are_those_of_numpy(n_x, n_y, d):
    x, y = random(n_x, d), random(n_y, d, 1)
    expected = kernel(x, y) - SHIFT
    of_x, of_y, squares = _core.kernel_sums(x, y, SHIFT)
    assert squares == pytest.approx((expected**2).sum(), rel=ANOTHER_ORDER)
    np.testing.assert_allclose(of_x, expected.sum(1), rtol=0, atol=ANOTHER_ORDER * np.abs(expected).sum(1).max())
    np.testing.assert_allclose(of_y, expected.sum(0), rtol=0, atol=ANOTHER_ORDER * np.abs(expected).sum(0).max())


@pytest.mark.parametrize(("n", "d"), [(1, 4), (2, 1), (384, 7), (1000, 65), (12_700, 2)])
def test_kernel_sums_within_leave_the_row_itself_out(n, d):
    x = random(n, d)
    expected = np.concatenate(
        [
            (k := kernel(x[i : i + 500], x)).sum(1) - k[np.arange(len(k)), np.arange(i, i + len(k))]
            for i in range(0, n, 500)
        ]
    )
    size = kernel(np.abs(x[:1]), np.abs(x)).sum() + n
    sums, squares = _core.kernel_sums_within(x, SHIFT)
    np.testing.assert_allclose(sums, expected - SHIFT * (n - 1), rtol=0, atol=ANOTHER_ORDER * size)
    whole = sum(((kernel(x[i : i + 500], x) - SHIFT) ** 2).sum() for i in range(0, n, 500))
    own = ((kernel_of_itself(x) - SHIFT) ** 2).sum()
    assert squares == pytest.approx(whole - own, rel=0, abs=ANOTHER_ORDER * whole)


def test_no_number_of_threads_changes_a_bit():
    x, y = random(1500, 40), random(900, 40, 1)
    before = _core.num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            _core.set_num_threads(threads)
            found.append((*_core.kernel_sums(x, y, SHIFT), *_core.kernel_sums_within(x, SHIFT)))
    finally:
        _core.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("x", "y", "kind", "text"),
    [
        (np.ones((3, 4)), np.ones((3, 4), np.float32), TypeError, "x: expected a C-contiguous float32 array"),
        (np.ones((3, 4), np.float32), np.ones(4, np.float32), TypeError, "y: expected a NumPy array with 2 dimensions"),
        (np.ones((3, 4), np.float32), np.ones((3, 5), np.float32), ValueError, r"y: expected shape \(n, 4\)"),
        (np.ones((3, 0), np.float32), np.ones((3, 0), np.float32), ValueError, "rows: expected 1 to"),
        (np.ones((3, 4), np.float32).T, np.ones((3, 3), np.float32), TypeError, "x: expected a C-contiguous"),
    ],
)
def test_what_has_no_kernel_sums(x, y, kind, text):
    with pytest.raises(kind, match=text):
        _core.kernel_sums(x, y, SHIFT)


def test_no_rows_have_empty_sums():
    of_x, of_y, squares = _core.kernel_sums(np.empty((0, 3), np.float32), random(4, 3), SHIFT)
    assert (len(of_x), squares) == (0, 0)
    np.testing.assert_array_equal(of_y, np.zeros(4))
    sums, squares = _core.kernel_sums_within(np.empty((0, 3), np.float32), SHIFT)
    assert (len(sums), squares) == (0, 0)


def test_rows_are_kept_in_their_order():
    kept = FeatureRows(3)
    parts = [random(n, 3, n) for n in (2, 1, 4)]
    for part in parts:
        kept.update({"features": part})
    np.testing.assert_array_equal(kept.rows(), np.concatenate(parts))
    assert kept.n == 7
    assert kept.rows() is kept.rows()  # joined once
    other = FeatureRows.from_state(kept.state())
    other.merge(kept)
    other.merge(other)
    np.testing.assert_array_equal(other.rows(), np.concatenate([*parts] * 4))


def test_joining_rows_gives_the_parts_free():
    kept = FeatureRows(4)
    for k in range(5):
        kept.update({"features": random(3, 4, k)})
    parts = [weakref.ref(part) for part in kept._parts]
    kept.rows()
    gc.collect()
    assert [part() for part in parts] == [None] * 5


def test_rows_of_another_output():
    kept = FeatureRows(2, output="spatial")
    kept.update({"features": random(3, 5), "spatial": random(3, 2)})
    np.testing.assert_array_equal(kept.rows(), random(3, 2))


def test_rows_on_a_device_come_to_the_host():
    class OnDevice:
        def numpy(self):
            return random(3, 2)

    kept = FeatureRows(2)
    kept.update({"features": OnDevice()})
    np.testing.assert_array_equal(kept.rows(), random(3, 2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_named(value):
    kept = FeatureRows(2)
    kept.update({"features": random(3, 2)})
    bad = random(4, 2)
    bad[2, 1] = value
    with pytest.raises(NumericalError, match="row 5 has NaN or infinite values"):
        kept.update({"features": bad})
    assert kept.n == 3


@pytest.mark.parametrize(
    ("state", "kind", "text"),
    [
        (3, TypeError, "state: expected a mapping, got int"),
        ({"d": 2}, ValueError, "the keys rows are missing"),
        ({"d": 2, "rows": [[1.0, 2.0]]}, TypeError, r"state\['rows'\]: expected a NumPy array, got list"),
        ({"d": 2, "rows": np.ones((3, 4), np.float32)}, ValueError, r"rows: expected shape \(n, 2\), got \(3, 4\)"),
        ({"d": 2, "rows": np.ones((3, 2))}, TypeError, "rows: expected float32, got float64"),
        (
            {"d": 0, "rows": np.ones((3, 0), np.float32)},
            ValueError,
            r"state\['d'\]: expected a positive",
        ),
        ({"d": "2", "rows": np.ones((3, 2), np.float32)}, ValueError, r"state\['d'\]: expected a positive integer"),
        ({"d": 2, "rows": np.full((3, 2), np.nan, np.float32)}, NumericalError, "row 0 has NaN"),
    ],
)
def test_states_that_are_none(state, kind, text):
    with pytest.raises(kind, match=text):
        FeatureRows.from_state(state)
