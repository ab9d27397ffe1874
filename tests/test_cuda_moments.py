"""Moments on a device without a device: the kernels of csrc/cuda/moments.cuh and the class around them, emulated.

The truth is NumPy in extended precision and the CPU's Moments. Emulated is not run: see tests/cuda_emulation.
"""

import ctypes
import itertools

import numpy as np
import pytest
from cuda_cases import EMULATED, TOLERANCE, MomentsCase, oracle
from emulation import ORDERS

import fastfid

DTYPES = {"float16": 0, "bfloat16": 1, "float32": 2, "float64": 3}  # fastfid::DType


class Moments:
    """The C functions of tests/cuda_emulation/moments.cpp as an object."""

    def __init__(self, library, d, arithmetic, block):
        self.library, self.d = library, d
        self.self = ctypes.c_void_p(library.moments_new(d, arithmetic == "float32", block))
        self.error = ctypes.create_string_buffer(256)

    def close(self):
        self.library.moments_delete(self.self)

    def call(self, name, *arguments):
        values = [a.ctypes.data_as(ctypes.c_void_p) if isinstance(a, np.ndarray) else a for a in arguments]
        if getattr(self.library, f"moments_{name}")(self.self, *values, self.error):
            raise RuntimeError(self.error.value.decode())

    def update(self, rows):
        size = rows.itemsize
        strides = [ctypes.c_long(stride // size) for stride in rows.strides]
        self.call("update", rows, DTYPES[rows.dtype.name], ctypes.c_long(len(rows)), *strides)

    def covariance(self, ddof=1):
        covariance, mean = np.full((self.d, self.d), np.nan), np.full(self.d, np.nan)
        self.call("covariance", ctypes.c_long(ddof), covariance, mean)
        return mean, covariance

    def to_host(self, n):
        covariance, mean = np.full((self.d, self.d), np.nan), np.full(self.d, np.nan)
        rows = np.full((n if n <= self.d else 0, self.d), np.nan, np.float32)
        self.call("to_host", covariance, mean, rows)
        return mean, covariance, rows


@pytest.fixture(scope="module")
def library(emulated_moments):
    library = ctypes.CDLL(emulated_moments)
    library.moments_new.restype = ctypes.c_void_p
    library.moments_n.restype = ctypes.c_long
    yield library
    library.emulation_order(0)


@pytest.fixture
def make(library):
    made = []

    def make(d, arithmetic="float64", order="forwards", block=256):
        library.emulation_order(ORDERS[order])
        made.append(Moments(library, d, arithmetic, block))
        return made[-1]

    yield make
    for moments in made:
        moments.close()


def run(make, case, arithmetic="float64", order="forwards"):
    moments = make(case.d, arithmetic, order)
    for batch in case.batches():
        moments.update(batch)
    return moments


def largest_error(got, expected):
    scale = np.abs(expected).max()
    return np.abs(got - expected).max() / scale if scale else np.abs(got).max()


@pytest.mark.parametrize("arithmetic", TOLERANCE)
@pytest.mark.parametrize("case", EMULATED, ids=str)
def test_moments_are_those_of_numpy(make, case, arithmetic):
    moments = run(make, case, arithmetic, order="shuffled")
    mean, covariance = moments.covariance()
    true_mean, true_covariance = oracle(case.rows())
    assert largest_error(covariance, true_covariance) < TOLERANCE[arithmetic]
    assert largest_error(mean, true_mean) < TOLERANCE[arithmetic]
    np.testing.assert_array_equal(covariance, covariance.T)
    host_mean, host_covariance, rows = moments.to_host(case.n)
    if case.is_thin:
        # The rows themselves have come back: the CPU's numbers to the last bit, whatever the arithmetic.
        np.testing.assert_array_equal(rows, case.rows().astype(np.float32))
        cpu = fastfid.Moments(case.d)
        cpu.update(np.ascontiguousarray(case.rows()))
        np.testing.assert_array_equal(host_mean, cpu.mean)
        np.testing.assert_array_equal(host_covariance, cpu.covariance())
    else:
        np.testing.assert_allclose(host_mean, mean, rtol=1e-15)
        np.testing.assert_allclose(host_covariance, covariance, rtol=1e-14, atol=1e-16 * np.abs(covariance).max())


@pytest.mark.parametrize("arithmetic", TOLERANCE)
@pytest.mark.parametrize(
    "case",
    [MomentsCase(65, 300, batch=300), MomentsCase(128, 270, "float16", batch=270), MomentsCase(520, 100, batch=100)],
    ids=str,
)
def test_no_order_of_the_threads_changes_a_bit(make, case, arithmetic):
    mean, covariance = run(make, case, arithmetic, "forwards").covariance()
    for order in ("backwards", "shuffled"):
        other_mean, other_covariance = run(make, case, arithmetic, order).covariance()
        np.testing.assert_array_equal(other_covariance, covariance)
        np.testing.assert_array_equal(other_mean, mean)


@pytest.mark.parametrize("arithmetic", TOLERANCE)
@pytest.mark.parametrize("d", [70, 128])
def test_no_split_into_updates_changes_a_bit(make, d, arithmetic):
    rows = MomentsCase(d, 560).rows()
    expected = None
    for sizes in ([560], [1, 127, 130, 302], [256, 256, 48], [d, 560 - d], [257, 303]):
        moments = make(d, arithmetic)
        for start, stop in itertools.pairwise(np.cumsum([0, *sizes])):
            moments.update(rows[start:stop])
        got = moments.covariance()
        expected = expected or got
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_blocks_of_the_size_on_a_device(make):
    rows = MomentsCase(64, 4500).rows()
    moments = make(64, block=2048)
    for batch in np.split(rows, [100, 4400]):
        moments.update(batch)
    for got, true in zip(moments.covariance(), oracle(rows), strict=True):
        assert largest_error(got, true) < TOLERANCE["float64"]


def test_asking_does_not_disturb(make):
    rows = MomentsCase(64, 400).rows()
    plain, asked = make(64), make(64)
    for batch in np.array_split(rows, 8):
        plain.update(batch)
        asked.update(batch)
        asked.covariance()
        asked.to_host(asked.library.moments_n(asked.self))
    for one, other in zip(plain.covariance(), asked.covariance(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("first", "second"), [(200, 1), (200, 30), (2, 260), (150, 210)])
def test_a_wide_stream_folds_several_blocks_when_it_leaves_the_thin_state(make, first, second):
    """d > 3 blocks: the buffer holds the rows of several when n passes d."""
    rows = MomentsCase(200, first + second).rows()
    moments = make(200, block=64)
    moments.update(rows[:first])
    np.testing.assert_array_equal(moments.to_host(first)[2], rows[:first])
    moments.update(rows[first:])
    for got, true in zip(moments.covariance(), oracle(rows), strict=True):
        assert largest_error(got, true) < TOLERANCE["float64"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("n", "where", "dtype"),
    [(10, 3, "float32"), (300, 299, "float16"), (300, 255, "bfloat16"), (300, 256, "float32"), (512, 500, "float32")],
)
def test_a_nonfinite_row_is_named_when_numbers_are_asked_for(make, bad, n, where, dtype):
    rows = MomentsCase(128, n, dtype).rows()
    rows[where, 127] = bad
    rows[min(where + 1, n - 1), 0] = bad
    moments = make(128)
    moments.update(rows)
    for ask in (lambda: moments.call("expect_finite"), lambda: moments.to_host(n)):
        with pytest.raises(RuntimeError, match=rf"^row {where} of those given to update\(\), counted from 0, has NaN"):
            ask()
    moments.library.moments_reset(moments.self)
    moments.update(MomentsCase(128, 10).rows())
    moments.call("expect_finite")
    assert moments.library.moments_n(moments.self) == 10


def test_what_is_refused(make, library):
    moments = make(4)
    with pytest.raises(RuntimeError, match="expected float32, float16 or bfloat16, got float64"):
        moments.update(np.zeros((3, 4)))
    with pytest.raises(RuntimeError, match="a covariance with ddof = 1 needs more than 1 rows, got 0"):
        moments.covariance()
    moments.update(np.zeros((0, 4), np.float32))
    assert library.moments_n(moments.self) == 0
    moments.update(np.ones((3, 4), np.float32))
    with pytest.raises(RuntimeError, match="ddof: expected 0 or more, got -1"):
        moments.covariance(-1)
    rows = np.ones((1, 4), np.float32)
    with pytest.raises(
        RuntimeError, match=r"x: expected at most 2\^62 rows in all, got 3 and 4611686018427387902 more"
    ):
        moments.call("update", rows, DTYPES["float32"], *map(ctypes.c_long, (2**62 - 2, 0, 1)))
    np.testing.assert_array_equal(moments.covariance()[1], np.zeros((4, 4)))


@pytest.mark.parametrize("squares", [1, 2, 3, 4, 5, 7, 8, 16, 17])
def test_every_tile_has_one_thread_block_and_every_panel_one_that_sums_it(library, squares):
    tiles, panels = [], []
    for index in range(library.work_count(squares)):
        pairs, sums = (ctypes.c_int * 8)(), (ctypes.c_int * 4)()
        library.work_tiles(index, squares, pairs, sums)
        tiles += [(pairs[i], pairs[i + 1]) for i in range(0, 8, 2) if pairs[i] >= 0]
        panels += [panel for panel in sums if panel >= 0]
    assert sorted(tiles) == [(row, column) for row in range(2 * squares) for column in range(row + 1)]
    assert sorted(panels) == list(range(2 * squares))


def test_the_machine_is_full(library):
    """132 multiprocessors: at d = 2048 one thread block for each; copies make up for it at the smaller widths."""
    counts = {d: (library.work_count(-(-d // 128)), library.copies_for(-(-d // 128))) for d in (64, 192, 768, 2048)}
    assert counts == {64: (1, 32), 192: (3, 32), 768: (20, 4), 2048: (132, 1)}
