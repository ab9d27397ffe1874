"""Moments on a device without a device: the kernels of csrc/cuda/moments.cuh and the class around them, emulated.

The truth is NumPy in extended precision and the CPU's Moments. Emulated is not run: see tests/cuda_emulation.
"""

import ctypes
import itertools

import numpy as np
import pytest
from emulation import ORDERS
from tolerances import FEW_ROUNDINGS, MOMENTS_ON_DEVICE

import fastfid
from benchmarks.cuda_cases import EMULATED, MomentsCase, oracle

DTYPES = {"float16": 0, "bfloat16": 1, "float32": 2, "float64": 3}  # fastfid::DType


class Moments:
    """The C functions of tests/cuda_emulation/moments.cpp as an object."""

    def __init__(self, library, d, handle):
        self.library, self.d = library, d
        self.self = ctypes.c_void_p(handle)
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

    @property
    def n(self):
        return self.library.moments_n(self.self)

    def merge(self, other):
        self.call("merge", other.self)

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
    library.moments_reload.restype = ctypes.c_void_p
    library.moments_n.restype = ctypes.c_long
    yield library
    library.emulation_order(0)
    library.emulation_fail_after(-1)


@pytest.fixture
def make(library):
    made = []

    def make(d, arithmetic="float64", order="forwards", block=256, state_of=None):
        library.emulation_order(ORDERS[order])
        if state_of is None:
            handle = library.moments_new(d, arithmetic == "float32", block)
        else:
            handle = library.moments_reload(state_of.self, block)
        made.append(Moments(library, d, handle))
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


@pytest.mark.parametrize("arithmetic", MOMENTS_ON_DEVICE)
@pytest.mark.parametrize("case", EMULATED.moments, ids=str)
def test_moments_are_those_of_numpy(make, case, arithmetic):
    moments = run(make, case, arithmetic, order="shuffled")
    mean, covariance = moments.covariance()
    true_mean, true_covariance = oracle(case.rows())
    assert largest_error(covariance, true_covariance) < MOMENTS_ON_DEVICE[arithmetic]
    assert largest_error(mean, true_mean) < MOMENTS_ON_DEVICE[arithmetic]
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
        np.testing.assert_allclose(host_mean, mean, rtol=FEW_ROUNDINGS)
        np.testing.assert_allclose(host_covariance, covariance, rtol=FEW_ROUNDINGS)


@pytest.mark.parametrize("arithmetic", MOMENTS_ON_DEVICE)
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


@pytest.mark.parametrize("arithmetic", MOMENTS_ON_DEVICE)
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
        assert largest_error(got, true) < MOMENTS_ON_DEVICE["float64"]


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
        assert largest_error(got, true) < MOMENTS_ON_DEVICE["float64"]


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


def assert_same_bits(one, other):
    for a, b in zip(one.covariance(), other.covariance(), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(moments, rows, tolerance=MOMENTS_ON_DEVICE["float64"]):
    """To NumPy's numbers on the device, and to those of the CPU's Moments on the host."""
    assert moments.n == len(rows)
    cpu = fastfid.Moments(moments.d)
    cpu.update(rows)
    host_mean, host_covariance, kept = moments.to_host(len(rows))
    if len(rows) <= moments.d:
        np.testing.assert_array_equal(kept, rows)
    for mean, covariance in (moments.covariance(), (host_mean, host_covariance)):
        true_mean, true_covariance = oracle(rows)
        assert largest_error(covariance, true_covariance) < tolerance
        assert largest_error(mean, true_mean) < tolerance
        assert largest_error(covariance, cpu.covariance()) < tolerance
        assert largest_error(mean, cpu.mean) < tolerance


def of(make, rows, **keywords):
    moments = make(rows.shape[1], **keywords)
    moments.update(rows)
    return moments


def halves(d, n1, n2):
    """Rows of two sets whose means and variances differ."""
    return MomentsCase(d, n1).rows(), np.float32(1.5) * MomentsCase(d, n2).rows() + np.float32(4)


MERGES = [  # d, rows of the two, rows in a block
    (64, 20, 30, 256),  # thin, and thin together
    (64, 34, 30, 64),  # thin together, exactly
    (64, 35, 30, 256),  # one row more; no block is complete
    (64, 64, 64, 64),  # d is passed by a block and a half
    (200, 150, 180, 64),  # several blocks when d is passed
    (64, 30, 600, 64),  # thin with sums
    (64, 600, 30, 64),
    (65, 700, 530, 256),  # sums with sums, rows pending in both
    (64, 512, 256, 256),  # none pending
    (128, 300, 200, 64),  # the other's rows are read from where they are
    (300, 330, 310, 64),  # 3 squares
    (3, 900, 2, 64),
]


@pytest.mark.parametrize(
    ("d", "n1", "n2", "block", "arithmetic"),
    [*((*case, "float64") for case in MERGES), *((*case, "float32") for case in MERGES if case[0] == 65)],
)
def test_merged_parts_are_those_of_numpy(make, d, n1, n2, block, arithmetic):
    first, second = halves(d, n1, n2)
    rows = np.concatenate([first, second])
    keywords = {"arithmetic": arithmetic, "order": "shuffled", "block": block}
    moments, other = of(make, first, **keywords), of(make, second, **keywords)
    moments.merge(other)
    assert_close(moments, rows, MOMENTS_ON_DEVICE[arithmetic])
    assert_same_bits(other, of(make, second, **keywords))
    assert other.n == n2
    if n1 + n2 <= d:
        assert_same_bits(moments, of(make, rows, **keywords))
    more = MomentsCase(d, block + 3).rows()
    moments.update(more)
    assert_close(moments, np.concatenate([rows, more]), MOMENTS_ON_DEVICE[arithmetic])


@pytest.mark.parametrize("n", [0, 1, 40, 400])
def test_merging_what_is_empty_changes_nothing(make, n):
    rows = MomentsCase(64, n).rows()
    moments, empty = of(make, rows, block=64), make(64, block=64)
    moments.merge(empty)
    empty.merge(make(64, block=64))
    assert (moments.n, empty.n) == (n, 0)
    empty.merge(moments)
    assert empty.n == n
    if n > 1:
        for merged in (moments, empty):
            assert_same_bits(merged, of(make, rows, block=64))


@pytest.mark.parametrize("n", [0, 20, 40, 64, 70, 128, 300])
def test_merging_with_itself(make, n):
    rows = MomentsCase(64, n).rows()
    moments = of(make, rows, block=64)
    moments.merge(moments)
    if n > 0:
        assert_close(moments, np.concatenate([rows, rows]))
    assert moments.n == 2 * n


@pytest.mark.parametrize("seed", range(3))
def test_random_splits_merged_in_any_order(make, seed):
    rng = np.random.default_rng(seed)
    d = int(rng.choice([5, 40, 130]))
    rows = np.sort(MomentsCase(d, 900).rows(), axis=0)  # the worst for a shift: the parts have different means
    parts = [of(make, part, block=64) for part in np.split(rows, np.sort(rng.integers(0, 901, 5)))]
    while len(parts) > 1:
        other = parts.pop(int(rng.integers(len(parts))))
        parts[int(rng.integers(len(parts)))].merge(other)
    assert_close(parts[0], rows)


def test_a_large_common_offset_costs_no_more_in_a_merge(make):
    rows = MomentsCase(100, 600, offset=1000.0).rows()
    moments = of(make, rows[:350], block=64)
    moments.merge(of(make, rows[350:], block=64))
    assert_close(moments, rows)


@pytest.mark.parametrize(("n1", "n2"), [(300, 10), (300, 300), (10, 300), (10, 20), (0, 300)])
@pytest.mark.parametrize("where", [0, -1])
def test_a_nonfinite_row_is_counted_after_the_rows_before_it(make, n1, n2, where):
    first, second = halves(64, n1, n2)
    second[where, 5] = np.nan
    bad = n1 + where % n2
    moments, other = of(make, first, block=64), of(make, second, block=64)
    moments.merge(other)
    moments.library.moments_reset(other.self)  # what has been merged is on its own
    moments.update(first)
    with pytest.raises(RuntimeError, match=rf"^row {bad} of those given to update\(\)"):
        moments.call("expect_finite")
    clean = of(make, halves(64, n1, n2)[0], block=64)
    clean.merge(moments)
    moments.merge(clean)
    for each, row in ((clean, n1 + bad), (moments, bad)):
        with pytest.raises(RuntimeError, match=rf"^row {row} of those given to update\(\)"):
            each.call("expect_finite")


def test_merges_that_are_refused_change_nothing(make, library):
    moments = of(make, MomentsCase(64, 300).rows(), block=64)
    with pytest.raises(RuntimeError, match="merge: expected d = 64, got 65"):
        moments.merge(of(make, MomentsCase(65, 3).rows()))
    with pytest.raises(RuntimeError, match="merge: expected sums in the same arithmetic"):
        moments.merge(make(64, "float32"))
    assert_close(moments, MomentsCase(64, 300).rows())


def test_a_merge_that_fails_half_way_leaves_both_usable(make, library):
    rows = MomentsCase(64, 300).rows()
    for launches in range(3):
        moments, other = of(make, rows, block=64), of(make, rows, block=64)
        library.emulation_fail_after(launches)
        with pytest.raises(RuntimeError, match="a launch that was told to fail"):
            moments.merge(other)
        library.emulation_fail_after(-1)
        assert_close(other, rows)
        library.moments_reset(moments.self)
        moments.merge(other)
        assert_close(moments, rows)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 128, 300])
def test_a_state_goes_on(make, n, dtype):
    rows = MomentsCase(64, 400, dtype, offset=100.0 * (dtype == "float32")).rows()
    moments = of(make, rows[:n], block=64)
    again = make(64, block=64, state_of=moments)
    assert again.n == n
    if 1 < n <= 64:
        np.testing.assert_array_equal(again.to_host(n)[2], rows[:n])
    for each in (moments, again):
        each.update(rows[n:])
    if n <= 64:
        assert_same_bits(again, moments)
    assert_close(again, rows.astype(np.float32))
    third = make(64, block=64, state_of=again)
    third.merge(moments)
    third.merge(again)
    assert_close(third, np.concatenate([rows] * 3).astype(np.float32))


@pytest.mark.parametrize("d", [1, 65, 128, 300])
def test_a_state_of_sums_of_any_width(make, d):
    rows = MomentsCase(d, d + 150).rows()
    moments = of(make, rows[: d + 70], arithmetic="float32")
    again = make(d, state_of=moments)
    again.update(rows[d + 70 :])
    assert_close(again, rows, MOMENTS_ON_DEVICE["float32"])


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
