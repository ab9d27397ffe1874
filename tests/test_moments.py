"""Moments against NumPy in float64 and extended precision; the same bits for any batching and any number of threads."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs import counts_during
from tolerances import ANOTHER_ORDER, COVARIANCE, FEW_ROUNDINGS, MOMENTS, TWO_PASSES

import fastfid
from fastfid import Moments, NumericalError, _core
from fastfid.protocols import input_spec

BLOCK = 383  # kBlockRows of csrc/core/moments.hpp: sizes around its multiples are the interesting ones


@pytest.fixture
def threads():
    """Set the number of the core's threads; put back afterwards."""
    yield _core.set_num_threads
    _core.set_num_threads(0)


def rows(n, d, seed=0, dtype=np.float32):
    """Correlated rows with means and scales that differ from feature to feature."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) @ (rng.standard_normal((d, d)) / np.sqrt(d)) * rng.uniform(0.1, 3, d)
    return (x + rng.uniform(-2, 2, d)).astype(dtype)


def moments_of(*batches):
    moments = Moments(batches[0].shape[1])
    for batch in batches:
        moments.update(batch)
    return moments


def two_pass(x):
    """Mean and scatter in extended precision (64-bit mantissa on x86)."""
    x = np.asarray(x, np.longdouble)
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred


def assert_same_bits(a, b):
    assert a.n == b.n
    np.testing.assert_array_equal(a.mean, b.mean)
    np.testing.assert_array_equal(a.covariance(), b.covariance())


def assert_close(moments, x, relative):
    """Errors of the scatter relative to sqrt(s_ii s_jj), its natural scale; of the mean to the largest value."""
    mean, scatter = two_pass(x)
    scale = np.sqrt(np.maximum(np.outer(np.diag(scatter), np.diag(scatter)), np.finfo(float).tiny))
    error = np.abs(moments.covariance(ddof=0) * moments.n - scatter) / scale
    assert error.max() < relative
    assert (np.abs(moments.mean - mean) <= relative * np.abs(x).max(0).astype(np.float64)).all()


# --- truth


@pytest.mark.parametrize(
    ("n", "d"),
    [(2, 1), (1000, 1), (2, 3), (3, 3), (4, 3), (383, 8), (384, 8), (767, 7), (600, 130), (100, 300), (700, 300)],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_two_pass_in_extended_precision(n, d, dtype):
    x = rows(n, d, dtype=dtype)
    assert_close(moments_of(x), x, TWO_PASSES)


def test_agrees_with_numpy_cov():
    x = rows(1000, 64)
    expected = np.cov(x.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(moments_of(x).covariance(), expected, rtol=0, atol=COVARIANCE * np.abs(expected).max())


@pytest.mark.parametrize("d", [2048, 4095])
def test_large_d(d):
    x = rows(300, 256)
    wide = np.zeros((300, d), np.float32)
    wide[:, :: d // 200] = x[:, : wide[:, :: d // 200].shape[1]]
    many = np.concatenate([wide] * (d // 300 + 1))
    moments = moments_of(many)
    assert moments.rows is None
    covariance = moments.covariance()
    used = np.flatnonzero(wide[0])
    expected = np.cov(many[:, used].astype(np.float64), rowvar=False)
    np.testing.assert_allclose(
        covariance[np.ix_(used, used)], expected, rtol=0, atol=COVARIANCE * np.abs(expected).max()
    )
    covariance[np.ix_(used, used)] = 0
    assert not covariance.any()


def test_offset_costs_no_digits():
    """A common offset of 1e6: sums of squares without a shift would keep 4 digits of 16."""
    x = np.random.default_rng(1).standard_normal((3000, 40)) + 1e6
    assert_close(moments_of(x), x, MOMENTS)


def test_first_row_far_from_the_others():
    """The fixed shift is the first row; blocks are centred on their own mean, so an outlier there does no harm."""
    x = np.random.default_rng(2).standard_normal((3000, 20))
    x[0] += 1e8
    assert_close(moments_of(x), x, MOMENTS)


def test_drifting_mean():
    x = np.random.default_rng(3).standard_normal((4000, 20)) + 1e5 * np.linspace(0, 1, 4000)[:, None]
    assert_close(moments_of(x), x, MOMENTS)


def test_constant_feature_has_variance_zero():
    x = rows(1000, 20)
    x[:, 7] = 0.1
    moments = moments_of(x[:300], x[300:])
    covariance = moments.covariance()
    assert not covariance[7].any()
    assert not covariance[:, 7].any()
    assert moments.mean[7] == np.float32(0.1)
    other = moments_of(x)
    other.merge(moments)
    assert not other.covariance()[7].any()


def test_one_and_two_rows():
    x = np.array([[1.0, 2.0, 4.0], [3.0, 8.0, 4.0]])
    one = moments_of(x[:1])
    np.testing.assert_array_equal(one.mean, x[0])
    assert not one.covariance(ddof=0).any()
    np.testing.assert_array_equal(moments_of(x).covariance(), [[2, 6, 0], [6, 18, 0], [0, 0, 0]])


def test_covariance_is_symmetric_and_ddof_divides():
    moments = moments_of(rows(500, 67))
    covariance = moments.covariance()
    np.testing.assert_array_equal(covariance, covariance.T)
    np.testing.assert_allclose(moments.covariance(ddof=0) * 500, covariance * 499, rtol=FEW_ROUNDINGS)


# --- the same bits


@settings(deadline=None, max_examples=60)
@given(
    d=st.sampled_from([1, 2, 5, 33, 150]),
    cuts=st.lists(st.integers(0, 700), max_size=12),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_split_into_updates_gives_the_same_bits(d, cuts, dtype):
    x = rows(700, d, seed=d, dtype=dtype)
    batches = np.split(x, sorted(cuts))
    assert_same_bits(moments_of(*batches), moments_of(x))


@pytest.mark.parametrize("batch", [1, 7, 50, 1000])
def test_batch_sizes_give_the_same_bits(batch):
    x = rows(2100, 300)
    assert_same_bits(moments_of(*(x[i : i + batch] for i in range(0, len(x), batch))), moments_of(x))


def test_reading_does_not_disturb_later_updates():
    x = rows(900, 40)
    read = Moments(40)
    for batch in np.split(x, [1, 10, 39, 41, 300, 301, 555]):
        read.update(batch)
        read.mean  # noqa: B018
        read.covariance(ddof=0)
        read.state()
    assert_same_bits(read, moments_of(x))


@pytest.mark.parametrize("d", [1, 127, 128, 700])
def test_numbers_of_threads_give_the_same_bits(d, threads):
    x = rows(2 * d + 600, d)
    half = len(x) // 2
    results = []
    for n in (1, 2, 3, 8):
        threads(n)
        merged = moments_of(x[:half])
        merged.merge(moments_of(x[half:]))
        results.append((moments_of(x[:half], x[half:]), merged))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_same_bits(a, b)


def test_strides_give_the_same_bits():
    x = rows(600, 90)
    expected = moments_of(x)
    reversed_twice = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    padded = np.zeros((600, 3, 97), np.float32)
    padded[:, 1, 5:95] = x
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    assert not unaligned.flags.aligned
    for view in (np.asfortranarray(x), reversed_twice, padded[:, 1, 5:95], unaligned):
        assert_same_bits(moments_of(view), expected)
        assert_same_bits(moments_of(view[:1], view[1:]), expected)
    broadcast = np.broadcast_to(x[0], (400, 90))
    assert_same_bits(moments_of(broadcast), moments_of(broadcast.copy()))


def test_input_is_not_modified():
    x = rows(600, 30)
    before = x.copy()
    x.flags.writeable = False
    moments_of(x).covariance()
    np.testing.assert_array_equal(x, before)


# --- dtypes


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_every_value_of_a_short_dtype_is_exact(dtype):
    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        x = bits.view(dtype).astype(np.float64)
    finite = np.isfinite(x)
    moments = Moments(int(finite.sum()))
    moments.update(bits.view(dtype)[finite][None])
    assert moments.rows.dtype == np.float32
    np.testing.assert_array_equal(moments.rows[0].astype(np.float64), x[finite])
    np.testing.assert_array_equal(moments.mean, x[finite])
    for bad in bits.view(dtype)[~finite]:
        with pytest.raises(NumericalError):
            Moments(1).update(np.array([[bad]], dtype))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32], ids=["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("d", [20, 300])
def test_shorter_dtypes_give_the_bits_of_their_float64_values(dtype, d):
    x = rows(700, d).astype(dtype)
    assert_same_bits(moments_of(x[:, ::-1][:, ::-1]), moments_of(x.astype(np.float64)))
    assert_same_bits(moments_of(x[:10], x[10:600], x[600:]), moments_of(x.astype(np.float64)))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 3), np.int64),
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 3), np.longdouble),
        np.zeros((2, 3), np.complex64),
        np.zeros((2, 3), ">f4"),
        np.zeros((2, 3), "V2"),
        np.zeros((2, 3), bool),
        np.zeros(3, np.float32),
        np.zeros((1, 2, 3), np.float32),
        np.float32(0),
        [[0.0, 0.0, 0.0]],
        None,
        "x",
    ],
    ids=lambda bad: f"{type(bad).__name__}-{getattr(bad, 'dtype', '')}-{getattr(bad, 'ndim', '')}",
)
def test_wrong_type_dtype_or_rank_is_a_type_error(bad):
    moments = Moments(3)
    with pytest.raises(TypeError, match=r"x: expected .*, got"):
        moments.update(bad)
    assert moments.n == 0


def test_wrong_shapes_and_arguments():
    moments = Moments(3)
    with pytest.raises(ValueError, match=r"x: expected shape \(n, 3\), got an array of float32 \(2, 4\)"):
        moments.update(np.zeros((2, 4), np.float32))
    moments.update(np.zeros((0, 3), np.float32))
    assert moments.n == 0
    with pytest.raises(ValueError, match="n >= 1"):
        moments.mean  # noqa: B018
    with pytest.raises(ValueError, match="n > ddof"):
        moments.covariance()
    moments.update(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="n > ddof = 1 rows, got n = 1"):
        moments.covariance()
    with pytest.raises(ValueError, match="ddof: expected >= 0, got -1"):
        moments.covariance(ddof=-1)
    with pytest.raises(ValueError, match="merge: expected d = 3, got 4"):
        moments.merge(Moments(4))
    with pytest.raises(TypeError):
        moments.merge(np.zeros((2, 3)))
    for d in (0, -1, 2**20 + 1):
        with pytest.raises(ValueError, match="d: expected 1 to 1048576"):
            Moments(d)


# --- NaN and overflow


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_before", [0, 5, 700])
def test_nonfinite_names_the_row_and_adds_nothing(dtype, value, n_before):
    x = rows(1500, 300).astype(dtype)
    moments = Moments(300)
    moments.update(x[:n_before])
    bad = x[n_before:].copy()
    bad[777 if n_before == 0 else 600, 299] = value
    bad[799, 3] = value
    with pytest.raises(NumericalError, match=f"x: row {777 if n_before == 0 else 600} of {len(bad)} "):
        moments.update(bad)
    assert moments.n == n_before
    moments.update(x[n_before:])
    assert_same_bits(moments, moments_of(x))


def test_overflow_is_an_error_and_not_an_infinity():
    huge = moments_of(np.array([[1e200, 0.0], [-1e200, 0.0], [0.0, 0.0]]))
    np.testing.assert_array_equal(huge.mean, [0, 0])
    with pytest.raises(NumericalError, match="variance of feature 0 overflows"):
        huge.covariance()
    with pytest.raises(NumericalError, match="feature 1 overflows"):
        moments_of(np.array([[0.0, 1.7e308], [0.0, -1.7e308]])).mean  # noqa: B018


def test_tiny_and_large_scales():
    x = rows(500, 10, dtype=np.float64)
    reference = moments_of(x).covariance()
    for scale in (2.0**-400, 2.0**400):  # powers of two: exact
        np.testing.assert_array_equal(moments_of(x * scale).covariance() / scale**2, reference)


# --- rows


def test_rows_are_kept_while_n_is_at_most_d():
    x = rows(41, 40)
    moments = Moments(40)
    assert moments.rows.shape == (0, 40)
    moments.update(x[:17])
    moments.update(x[17:40])
    assert moments.rows.dtype == np.float32
    np.testing.assert_array_equal(moments.rows, x[:40])
    moments.rows[:] = 0  # a copy
    np.testing.assert_array_equal(moments.rows, x[:40])
    moments.update(x[40:])
    assert moments.rows is None


def test_rows_are_never_cast_to_float32():
    x = rows(30, 40, dtype=np.float64)
    moments = moments_of(x[:10].astype(np.float32), x[10:])
    assert moments.rows.dtype == np.float64
    np.testing.assert_array_equal(moments.rows, np.concatenate([x[:10].astype(np.float32), x[10:]]))
    moments.update(x[:3].astype(np.float32))
    assert moments.rows.dtype == np.float64
    moments.reset()
    assert moments.n == 0
    assert moments.rows.shape == (0, 40)
    moments.update(x[:1].astype(np.float32))
    assert moments.rows.dtype == np.float32


def test_merge_concatenates_rows_while_they_fit():
    x = rows(41, 40)
    a, b = moments_of(x[:13]), moments_of(x[13:40])
    a.merge(b)
    np.testing.assert_array_equal(a.rows, x[:40])
    np.testing.assert_array_equal(b.rows, x[13:40])
    assert_same_bits(a, moments_of(x[:40]))
    a.merge(moments_of(x[40:]))
    assert a.rows is None
    assert_same_bits(a, moments_of(x))


def test_rows_of_both_dtypes_merge():
    x = rows(20, 40, dtype=np.float64)
    a = moments_of(x[:10].astype(np.float32))
    a.merge(moments_of(x[10:]))
    assert a.rows.dtype == np.float64
    np.testing.assert_array_equal(a.rows[10:], x[10:])


# --- merge


@settings(deadline=None, max_examples=60)
@given(
    d=st.sampled_from([1, 4, 33, 150]),
    cuts=st.lists(st.integers(0, 900), max_size=8),
    order=st.randoms(use_true_random=False),
)
def test_parts_merge_to_the_whole_in_any_order(d, cuts, order):
    x = rows(900, d, seed=d) + np.float32(100)
    parts = [moments_of(part) for part in np.split(x, sorted(cuts))]
    order.shuffle(parts)
    while len(parts) > 1:
        a = parts.pop(order.randrange(len(parts)))
        b = parts[order.randrange(len(parts))]
        b.merge(a)
    assert parts[0].n == 900
    assert_close(parts[0], x, MOMENTS)


def test_merge_sees_distant_means():
    x = np.random.default_rng(5).standard_normal((3000, 12))
    x[1000:] += 1e4
    merged = moments_of(x[:1000])
    merged.merge(moments_of(x[1000:]))
    assert_close(merged, x, MOMENTS)


@pytest.mark.parametrize("n", [0, 1, 10, 21, 500])
def test_merge_with_itself_doubles(n):
    x = rows(n, 20)
    moments = moments_of(x)
    moments.merge(moments)
    assert moments.n == 2 * n
    if n:
        assert_close(moments, np.concatenate([x, x]), MOMENTS)


def test_merge_with_nothing_changes_nothing():
    x = rows(500, 20)
    a = moments_of(x)
    a.merge(Moments(20))
    assert_same_bits(a, moments_of(x))
    b = Moments(20)
    b.merge(moments_of(x))
    assert_same_bits(b, a)


def test_updates_go_on_after_a_merge():
    x = rows(2000, 20)
    a = moments_of(x[:700])
    a.merge(moments_of(x[700:1300]))
    for part in np.split(x[1300:], [3, 400]):
        a.update(part)
    assert_close(a, x, MOMENTS)


# --- state


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 29, 30, 31, 383, 766, 900])
def test_state_pickle_and_copy_continue_with_the_same_bits(n, dtype):
    x = rows(1200, 30, dtype=dtype)
    original = moments_of(x[:n])
    for clone in (
        Moments.from_state(original.state()),
        pickle.loads(pickle.dumps(original)),
        copy.deepcopy(original),
        copy.copy(original),
    ):
        assert (clone.n, clone.d) == (n, 30)
        if n <= 30:
            assert clone.rows.dtype == original.rows.dtype
            np.testing.assert_array_equal(clone.rows, original.rows)
        clone.update(x[n:])
        assert_same_bits(clone, moments_of(x))
    assert original.n == n


def test_state_holds_the_lower_triangle():
    x = rows(500, 6, dtype=np.float64)
    state = moments_of(x[: BLOCK + 1]).state()
    assert state["counts"].tolist() == [BLOCK]
    assert state["pending_counts"].tolist() == [1]
    np.testing.assert_array_equal(state["pending"], x[BLOCK : BLOCK + 1])
    expected = np.cov(x[:BLOCK], rowvar=False, ddof=0) * BLOCK
    triangle, deviations = np.tril_indices(6), np.sqrt(np.diag(expected))
    error = np.abs(state["scatter"][0] - expected[triangle])
    assert (error <= MOMENTS * np.outer(deviations, deviations)[triangle]).all()
    np.testing.assert_allclose(state["shift"][0] + state["shifted_mean"][0], x[:BLOCK].mean(0), rtol=ANOTHER_ORDER)


def broken(key, value):
    def change(state):
        if value is None:
            del state[key]
        else:
            state[key] = value(state[key])

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (broken("scatter", None), ValueError),
        (broken("n", None), ValueError),
        (broken("n", lambda n: n + 1), ValueError),
        (broken("n", lambda n: -1), ValueError),
        (broken("n", lambda n: "many"), TypeError),
        (broken("d", lambda d: d + 1), ValueError),
        (broken("d", lambda d: 0), ValueError),
        (broken("counts", lambda c: c - 1), ValueError),
        (broken("counts", lambda c: c.astype(np.int32)), TypeError),
        (broken("counts", lambda c: c[:0]), ValueError),
        (broken("pending_counts", lambda c: c + 1), ValueError),
        (broken("pending_counts", lambda c: -c), ValueError),
        (broken("pending", lambda p: p[1:]), ValueError),
        (broken("pending", lambda p: p[:, 1:]), ValueError),
        (broken("pending", lambda p: p * np.nan), NumericalError),
        (broken("pending", lambda p: p.astype(int)), TypeError),
        (broken("rows", lambda r: np.zeros((3, 9), np.float32)), ValueError),
        (broken("shift", lambda s: s[:, 1:]), ValueError),
        (broken("shift", lambda s: s[0]), TypeError),
        (broken("shifted_mean", lambda s: s.astype(np.float32)), TypeError),
        (broken("scatter", lambda s: s[:, 1:]), ValueError),
        (broken("scatter", lambda s: s * np.inf), NumericalError),
        (broken("scatter", lambda s: np.asfortranarray(np.repeat(s, 2, 0))), TypeError),
        (broken("scatter", lambda s: -s), ValueError),
    ],
)
def test_contradictory_state_is_refused(change, error):
    state = moments_of(rows(500, 9)).state()
    assert Moments.from_state(state).n == 500
    change(state)
    with pytest.raises(error, match=r"state|pending|shift|shifted_mean|counts|scatter|d: expected|rows"):
        Moments.from_state(state)


Q = 2**62


def ints(*values):
    return np.array(values, np.int64)


def large_state(**changes):
    """A state of 2^62 rows, the most that there may be; the changes make it impossible."""
    state = {
        "d": 8,
        "n": Q,
        "rows": np.zeros((0, 8), np.float32),
        "counts": ints(Q),
        "pending_counts": ints(0),
        "pending": np.zeros((0, 8), np.float32),
        "shift": np.zeros((1, 8)),
        "shifted_mean": np.zeros((1, 8)),
        "scatter": np.zeros((1, 36)),
    }
    return state | changes


HOSTILE = {
    "a sum that wraps": (
        {"counts": ints(2**63 - 1), "pending_counts": ints(2**63 - 1)},
        "state['counts'] and state['pending_counts']: 9223372036854775807 + 9223372036854775807 does not fit",
    ),
    "a sum that wraps to 0": (
        {"n": 0, "counts": ints(2**63 - 1), "pending_counts": ints(2**63 - 1)},
        "state['counts']: expected shape (0,), got (1,)",
    ),
    "a negative count": ({"counts": ints(-1)}, "state['counts']: expected no negative number, got -1"),
    "a negative count with the sum n": (
        {"counts": ints(-1), "pending_counts": ints(Q + 1)},
        "state['counts']: expected no negative number, got -1",
    ),
    "a negative pending count": (
        {"counts": ints(Q + 4), "pending_counts": ints(-4)},
        "state['pending_counts']: expected no negative number, got -4",
    ),
    "another sum": ({"counts": ints(Q + 1)}, "expected a sum of 4611686018427387904, as state['n'] says, got"),
    "two counts": ({"counts": ints(Q, 0)}, "state['counts']: expected shape (1,), got (2,)"),
    "no counts": ({"counts": ints()}, "state['counts']: expected shape (1,), got (0,)"),
    "two pending counts": ({"pending_counts": ints(0, 0)}, "state['pending_counts']: expected shape (1,), got (2,)"),
    "no pending counts": ({"pending_counts": ints()}, "state['pending_counts']: expected shape (1,), got (0,)"),
    "pending rows that are not there": (
        {"counts": ints(Q - 5), "pending_counts": ints(5)},
        "state['pending']: expected shape (5, 8), got (0, 8)",
    ),
    "no dimensions": ({"d": 0, "rows": np.zeros((1, 0), np.float32)}, "state['d']: expected 1 to 1048576"),
    "negative dimensions": ({"d": -8}, "state['d']: expected 1 to 1048576"),
    "dimensions beyond 32 bits": ({"d": 2**32 + 8}, "state['d']: expected 1 to 1048576"),
    "groups": ({"groups": 2}, "state['groups']: expected 0, because moments of groups of rows are no longer supported"),
    "a group": ({"groups": 1}, "state['groups']: expected 0, because"),
    "a negative number of groups": ({"groups": -1}, "state['groups']: expected 0, because"),
    "groups beyond 32 bits": ({"groups": 2**32}, "state['groups']: expected 0, because"),
    "groups beyond 64 bits": ({"groups": 2**64}, "state['groups']: expected an integer of 64 bits"),
    "n beyond 2^62": ({"n": 2**63 - 1}, "state['n']: expected 0 to 2^62, got 9223372036854775807"),
    "n beyond 64 bits": ({"n": 2**64 + 3}, "state['n']: expected an integer of 64 bits"),
    "a negative n": ({"n": -1}, "state['n']: expected 0 to 2^62, got -1"),
    "rows beside counts": ({"rows": np.zeros((3, 8), np.float32)}, "state['rows']: expected shape (0, 8), got (3, 8)"),
    "rows of another width": (
        {"rows": np.zeros((0, 9), np.float32)},
        "state['rows']: expected shape (0, 8), got (0, 9)",
    ),
    "too short a triangle": ({"scatter": np.zeros((1, 35))}, "state['scatter']: expected shape (1, 36), got (1, 35)"),
    "the size of another shape": (
        {"scatter": np.zeros((36, 1))},
        "state['scatter']: expected shape (1, 36), got (36, 1)",
    ),
    "no shift": ({"shift": np.zeros((0, 8))}, "state['shift']: expected shape (1, 8), got (0, 8)"),
    "two means": ({"shifted_mean": np.zeros((2, 8))}, "state['shifted_mean']: expected shape (1, 8), got (2, 8)"),
    "numbers of no rows": (
        {
            "n": 9,
            "counts": ints(0),
            "pending_counts": ints(9),
            "pending": np.zeros((9, 8), np.float32),
            "shifted_mean": np.ones((1, 8)),
        },
        "state['counts']: no rows are folded, but",
    ),
    "few rows and sums": (
        {"n": 3, "rows": np.zeros((3, 8), np.float32)},
        "state['counts']: expected shape (0,)",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_state_is_refused(kind):
    changes, said = HOSTILE[kind]
    with pytest.raises(ValueError, match=r"^state") as error:
        Moments.from_state(large_state(**changes))
    assert said in str(error.value)


@pytest.mark.parametrize("key", [*large_state(), "groups"])
@pytest.mark.parametrize("value", [None, "x", 1.5, [1, 2], np.zeros(3, np.int32), np.zeros((2, 2), complex), {}])
def test_an_entry_of_another_type_is_named(key, value):
    with pytest.raises(TypeError, match=rf"^state\['{key}'\]: expected .*, got "):
        Moments.from_state(large_state(**{key: value}))


@pytest.mark.parametrize("key", large_state())
def test_a_missing_entry_is_named(key):
    state = large_state()
    del state[key]
    with pytest.raises(ValueError, match=f"state: the key '{key}' is missing"):
        Moments.from_state(state)


@pytest.mark.parametrize("n", [0, 20, 30, 31, 900])
def test_states_of_versions_with_groups_of_rows_load(n):
    """These states also have ``groups``, and are loaded if it is 0."""
    x = rows(n + 100, 30)
    state = moments_of(x[:n]).state()
    assert "groups" not in state
    moments = Moments.from_state({"groups": 0} | state)
    moments.update(x[n:])
    assert_same_bits(moments, moments_of(x))


@pytest.mark.parametrize("state", [None, 3, [], "x", list(large_state().items())])
def test_what_is_no_dict_is_no_state(state):
    with pytest.raises(TypeError, match=f"state: expected a dict, .*, got {type(state).__name__}"):
        Moments.from_state(state)


def test_rows_are_counted_up_to_2_to_the_62():
    moments = Moments.from_state(large_state())
    assert moments.n == Q
    for add, what in ((lambda: moments.update(rows(3, 8)), "x"), (lambda: moments.merge(moments), "merge")):
        with pytest.raises(ValueError, match=f"{what}: expected at most 2\\^62 rows in all, got {Q} and"):
            add()
    moments.update(rows(0, 8))
    assert moments.n == Q
    less = Moments.from_state(large_state(n=Q - 3, counts=ints(Q - 3)))
    less.update(rows(3, 8))
    assert less.n == Q
    one = Moments(8)
    one.update(rows(1, 8))
    with pytest.raises(ValueError, match="merge: expected at most"):
        one.merge(less)
    assert one.n == 1


@pytest.mark.parametrize("strides", [(2**62, 4), (8, 2**62), (2**61, 2**61), (-(2**63) + 1, 4)])
def test_strides_that_lead_beyond_all_addresses(strides):
    x = np.lib.stride_tricks.as_strided(np.zeros(100, np.float32), (5, 3), strides)
    moments = Moments(3)
    with pytest.raises(ValueError, match=r"^x: .* does not fit into 64 bits"):
        moments.update(x)
    state = moments_of(rows(2, 3)).state() | {"rows": x[:2]}
    if strides != (8, 2**62):
        state |= {"n": 3, "rows": x[:3]}
    with pytest.raises(ValueError, match=r"^state\['rows'\]: .* does not fit into 64 bits"):
        Moments.from_state(state)


def test_one_row_may_have_any_stride():
    """As NumPy's arrays do; the sanitizers watch that no address is made of it."""
    row = rows(1, 8)
    view = np.lib.stride_tricks.as_strided(row, (1, 8), (-(2**62), 4))
    state = large_state(counts=ints(Q - 1), pending_counts=ints(1), pending=view)
    np.testing.assert_array_equal(Moments.from_state(state).state()["pending"], row)
    np.testing.assert_array_equal(moments_of(view).rows, row)


def test_a_state_may_change_while_it_is_read():
    """Another thread writes to the counts: they are what they were when they were checked, or refused."""
    state = moments_of(rows(5000, 40)).state()
    original = state["pending_counts"].copy()
    is_over = threading.Event()

    def write():
        while not is_over.is_set():
            state["pending_counts"][:] = 2**40
            state["pending_counts"][:] = original

    thread = threading.Thread(target=write)
    thread.start()
    accepted = 0
    try:
        for _ in range(300):
            try:
                assert Moments.from_state(state).n == 5000
                accepted += 1
            except ValueError as error:
                assert "state['" in str(error)  # noqa: PT017
    finally:
        is_over.set()
        thread.join()
    assert accepted > 0


# --- threads


def test_many_threads_each_with_its_own_moments():
    inputs = [rows(700, 150, seed=seed) for seed in range(8)]
    expected = [moments_of(x) for x in inputs]
    results = [None] * len(inputs)

    def work(i):
        results[i] = moments_of(*np.split(inputs[i], [100, 101, 400]))
        results[i].merge(results[i])

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for moments, single in zip(results, expected, strict=True):
        single.merge(single)
        assert_same_bits(moments, single)


def test_one_object_from_many_threads_loses_nothing():
    x = rows(200, 30)
    moments, others = Moments(30), [moments_of(x[:40]) for _ in range(2)]

    def update():
        for part in np.split(x, range(10, 200, 10)):
            moments.update(part)

    def merge(a, b):
        for _ in range(5):
            a.merge(b)

    def read():
        for _ in range(50):
            if moments.n > 1:
                assert np.isfinite(moments.covariance()).all()
            moments.state()

    workers = [threading.Thread(target=f) for f in (update, update, update, read, read)]
    # Merging two objects into each other at once would deadlock if locks were taken one after the other.
    workers += [threading.Thread(target=merge, args=pair) for pair in (others, others[::-1])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert moments.n == 600
    np.testing.assert_allclose(moments.mean, x.astype(np.float64).mean(0), rtol=MOMENTS)


def test_another_python_thread_makes_progress_during_an_update():
    x = rows(600, 600)
    big = np.concatenate([x] * 10)
    moments = moments_of(x, x)
    assert counts_during(lambda: (moments.update(big), moments.covariance())) > 100


def test_memory_does_not_grow_with_the_rows():
    """400,000 rows of 256 float32 are 410 MB: kept once, they would break the bound; d^2 float64 are 0.5 MB."""
    script = """
import resource, sys
import numpy as np
from fastfid import Moments
batch = np.random.default_rng(0).standard_normal((1000, 256), np.float32)
moments = Moments(256)
for _ in range(3):
    moments.update(batch)
moments.covariance()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(400):
    moments.update(batch)
moments.covariance()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, moments.n)
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    grown_kib, n = map(int, out.split())
    assert n == 403_000
    assert grown_kib < 20 * 1024


OUT_OF_MEMORY = """
import pickle, resource, sys
import numpy as np
from fastfid import Moments

d = 2048
rng = np.random.default_rng(0)
rows = rng.standard_normal((2100, d), np.float32)
small, big, thick = Moments(d), Moments(d), Moments(d)
small.update(rows[:100])
big.update(rows)
thick.update(rows[::-1])
near = Moments(d)
near.update(rows[:2040])
calls = {
    "thin.merge(thick)": (small, lambda: small.merge(big)),
    "leave thin": (near, lambda: near.update(rows[:100])),
    "thin.merge(thin)": (near, lambda: near.merge(small)),
    "thick.merge(fresh copy)": (thick, lambda: thick.merge(thick)),
}
thick.covariance()  # BLAS has its buffers from here on
target, call = calls[sys.argv[1]]
before = pickle.dumps(target.state())
pages = int(open("/proc/self/statm").read().split()[0])
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (8 << 20), hard))
try:
    call()
except MemoryError:
    print("MemoryError")
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert pickle.dumps(target.state()) == before
expected = Moments.from_state(pickle.loads(before))
assert np.array_equal(target.mean, expected.mean)
call()  # and with the memory it works
print(target.n)
"""


@pytest.mark.parametrize(
    ("call", "n"),
    [("thin.merge(thick)", 2200), ("leave thin", 2140), ("thin.merge(thin)", 2140), ("thick.merge(fresh copy)", 4200)],
)
def test_a_call_that_runs_out_of_memory_changes_nothing(call, n):
    # memory that was freed goes back to the system, or glibc would serve the call from it
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", OUT_OF_MEMORY, call]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (done.stdout.split(), done.returncode) == (["MemoryError", str(n)], 0), done.stderr


def test_fewer_threads_than_asked_for_change_nothing():
    """Stacks of 64 MiB under a limit with room for none of the helpers; without the limit they come."""
    script = """
import os, resource
import numpy as np
from fastfid import Moments, _core

x = np.random.default_rng(0).standard_normal((600, 512))
def moments():
    m = Moments(512)
    m.update(x)
    return m.covariance()
_core.set_num_threads(1)
expected = moments()
_core.set_num_threads(16)
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (48 << 20), hard))
for is_limited in (True, False):
    if not is_limited:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    for _ in range(20):
        assert np.array_equal(moments(), expected)
    print(len(os.listdir("/proc/self/task")))
"""
    # glibc takes the size of a thread's stack from the limit at the start of the process
    command = ["bash", "-c", 'ulimit -s 65536 && exec "$@"', "-", sys.executable, "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    none, some = map(int, done.stdout.split())
    assert some > none


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000", "cpu.max": "700000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "400000 100000"}, 1),
        ("0::/docker/of/the/host\n", {"cpu.max": "200000 100000"}, 2),
        ("0::/\n", {"other/cpu.max": "100000 100000"}, 0),
        ("0::/a\n", {"a/cpu.max": "1000 100000"}, 1),
        (
            "9:name=systemd:/x\n3:cpuset:/y\n2:cpu,cpuacct:/a:b/c\n0::/\n",
            {
                "cpu/a:b/c/cpu.cfs_quota_us": "-1",
                "cpu/a:b/c/cpu.cfs_period_us": "100000",
                "cpu/a:b/cpu.cfs_quota_us": "400000",
                "cpu/a:b/cpu.cfs_period_us": "100000",
                "cpu/y/cpu.cfs_quota_us": "100000",
                "cpu/y/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        ("nonsense\n", {"cpu.max": "100000 100000"}, 0),
    ],
)
def test_cgroup_quota_is_the_smallest_from_the_own_group_up(tmp_path, membership, files, cpus):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert _core.cgroup_quota(str(tmp_path / "membership"), str(tmp_path / "mount")) == cpus


def test_cgroup_quota_without_control_groups(tmp_path):
    assert _core.cgroup_quota(str(tmp_path / "none"), str(tmp_path)) == 0


def test_a_masked_array_is_a_type_error():
    moments = Moments(3)
    for mask in (False, np.eye(4, 3, dtype=bool)):
        with pytest.raises(TypeError, match=r"x: expected an array without a mask, got a masked array.*\(4, 3\)"):
            moments.update(np.ma.MaskedArray(np.ones((4, 3)), mask=mask))
    assert moments.n == 0
    pixels = np.ma.masked_equal(np.zeros((8, 8, 3), np.uint8), 0)
    with pytest.raises(TypeError, match=r"images\[0\]: expected an array without a mask"):
        _core.preprocess([pixels], input_spec("pytorch-fid"))


def test_repr_and_public_name():
    assert fastfid.Moments is _core.Moments
    assert repr(Moments(3)) == "Moments(d=3, n=0)"
