"""The random sample of feature rows: independent of batching, mergeable, and a fair sample."""

import copy
import pickle

import numpy as np
import pytest
import scipy.stats
from stubs import HostArray
from tolerances import DEVIATIONS

from fastfid import Statistics
from fastfid.cli import main
from fastfid.metrics.moments import FeatureMoments
from fastfid.reservoir import RESERVOIR_ROWS, RowReservoir, _keys


def numbered(start, stop, d=3):
    """Rows that say which they are."""
    return np.repeat(np.arange(start, stop, dtype=np.float32)[:, None], d, axis=1)


def filled(rows, cuts=(), wrap=lambda rows: rows):
    reservoir = RowReservoir(rows.shape[1])
    for part in np.split(rows, list(cuts)):
        reservoir.update(wrap(part.copy()))
    return reservoir


def same(a, b):
    return np.array_equal(a.keys, b.keys) and np.array_equal(a.rows, b.rows) and a.n == b.n


@pytest.mark.parametrize("n", [0, 1, 2047, 2048, 2049, 9000])
def test_the_sample_does_not_depend_on_the_cut(n):
    rows = numbered(0, n)
    whole = filled(rows)
    assert whole.rows.shape == (min(n, RESERVOIR_ROWS), 3)
    assert whole.n == n
    assert (np.diff(whole.keys) > 0).all()
    rng = np.random.default_rng(n)
    for _ in range(3):
        assert same(filled(rows, np.sort(rng.integers(0, n + 1, 7))), whole)
    assert same(filled(rows, range(64, n, 64), HostArray), whole)  # as on a device
    assert len(np.unique(whole.rows[:, 0])) == min(n, RESERVOIR_ROWS)


def test_all_rows_are_kept_as_long_as_they_fit():
    assert set(filled(numbered(0, 2048)).rows[:, 0]) == set(range(2048))


def test_the_sample_is_fair():
    """Of every tenth of the stream as many rows, and the hash is SplitMix64's."""
    found = filled(numbered(0, 50_000), range(777, 50_000, 777)).rows[:, 0]
    counts = np.histogram(found, np.linspace(0, 50_000, 11))[0]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    # The first output of the published generator for the seed 0 is 0xE220A8397B1DCDAF.
    assert _keys(np.arange(1))[0] == 0xE220A8397B1DCDAF >> 1


def test_merged_parts_are_a_sample_of_both():
    parts = filled(numbered(0, 30_000)), filled(numbered(30_000, 40_000))
    merged = parts[0].copy()
    merged.merge(parts[1])
    assert (merged.n, len(merged.rows)) == (40_000, RESERVOIR_ROWS)
    share = (merged.rows[:, 0] >= 30_000).mean()
    deviation = np.sqrt(0.25 * 0.75 / RESERVOIR_ROWS)  # binomial
    assert share == pytest.approx(0.25, rel=0, abs=DEVIATIONS * deviation)
    assert (np.diff(merged.keys) > 0).all()
    assert parts[0].n == 30_000  # the copy went on by itself
    twice = filled(numbered(0, 5))
    twice.merge(twice)
    assert twice.n == len(twice.rows) == 10
    with pytest.raises(ValueError, match="other: expected rows of 3 features, got 4"):
        merged.merge(RowReservoir(4))


def test_sets_with_images_left_out_merge_without_equal_keys():
    """Their indices go beyond their number of rows."""
    a, b = RowReservoir(3), filled(numbered(100, 200))
    a.update(numbered(0, 50), np.arange(50, 100))
    a.merge(b)
    assert RowReservoir.from_state(a.state(), 3, 150).n == 150
    assert set(a.rows[:, 0]) == {*range(50), *range(100, 200)}


def test_many_small_parts_are_sampled_in_all_their_places():
    """Every part begins with the same keys; its rows have other keys in the whole."""
    merged = RowReservoir(3)
    for _ in range(1000):
        merged.merge(filled(numbered(0, 10)))
    counts = np.bincount(merged.rows[:, 0].astype(int), minlength=10)
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    merged.merge(filled(numbered(10, 40_000)))
    counts = np.histogram(merged.rows[:, 0], np.linspace(10, 40_000, 11))[0]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    assert merged.n == 49_990


def test_an_interrupt_between_moments_and_sample_drops_the_sample(monkeypatch):
    moments = accumulated(features(50, 1))

    def interrupted(rows, indices):
        raise KeyboardInterrupt

    monkeypatch.setattr(moments._reservoir, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        moments.update({"features": features(10, 2)})
    assert moments.n == 60
    assert moments.statistics({}, "x").reservoir is None
    assert FeatureMoments.from_state(moments.state()).n == 60
    whole = accumulated(features(50, 1))
    moments.merge(FeatureMoments(moments.d))
    assert moments.n == 60
    whole.merge(moments)
    assert whole.n == 110
    assert whole.statistics({}, "x").reservoir is None
    joined = FeatureMoments(moments.d)
    joined.join(moments, 0, 0)
    assert joined.n == 60
    assert joined.statistics({}, "x").reservoir is None


def test_features_beyond_float32_have_no_sample(tmp_path):
    rows = np.random.default_rng(0).standard_normal((60, 4)) * [1e39, 1, 1, 1]
    statistics = Statistics.from_features(rows)
    assert statistics.reservoir is None
    assert Statistics.load(statistics.save(tmp_path / "x")).n == 60


def test_states_go_on():
    rows = numbered(0, 7000)
    half = filled(rows[:5000])
    for restored in (
        RowReservoir.from_state(half.state(), 3, 5000),
        pickle.loads(pickle.dumps(half)),
        copy.deepcopy(half),
        half.copy(),
    ):
        restored.update(rows[5000:])
        assert same(restored, filled(rows))
    assert half.n == 5000


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"reservoir_keys": None}, ValueError, "the entry reservoir_keys is missing"),
        ({"reservoir_rows": [[1.0]]}, TypeError, "reservoir_rows: expected a NumPy array, got list"),
        ({"reservoir_rows": np.zeros((9, 3))}, TypeError, "reservoir_rows: expected float32, got float64"),
        ({"reservoir_rows": np.zeros((9, 4), np.float32)}, ValueError, r"reservoir_rows: expected shape \(9, 3\)"),
        ({"reservoir_rows": np.full((9, 3), np.nan, np.float32)}, ValueError, "reservoir_rows: has NaN"),
        ({"reservoir_keys": np.arange(8)}, ValueError, r"reservoir_keys: expected shape \(9,\) for n = 9, got \(8,\)"),
        ({"reservoir_keys": np.arange(9)[::-1]}, ValueError, "reservoir_keys: expected ascending"),
        ({"reservoir_keys": np.zeros(9, np.int64)}, ValueError, "reservoir_keys: expected ascending"),
        ({"reservoir_keys": np.arange(-1, 8)}, ValueError, "reservoir_keys: expected ascending"),
        ({"reservoir_keys": np.ma.masked_array(np.arange(9))}, TypeError, "mask"),
    ],
)
def test_bad_states(change, error, text):
    state = {key: value for key, value in (filled(numbered(0, 9)).state() | change).items() if value is not None}
    with pytest.raises(error, match=text):
        RowReservoir.from_state(state, 3, 9)


# --------------------------------------------------------------------------------------- in accumulators and in files


def accumulated(rows):
    moments = FeatureMoments(rows.shape[1])
    for part in np.array_split(rows, 3):
        moments.update({"features": part})
    return moments


def features(n, seed, d=6):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_the_sample_travels_with_the_moments():
    rows = features(3000, 1)
    moments = accumulated(rows)
    expected = filled(rows)
    assert same(moments.statistics({}, "x").reservoir, expected)
    restored = FeatureMoments.from_state(moments.state())
    restored.merge(accumulated(features(50, 2)))
    assert restored.statistics({}, "x").reservoir.n == restored.n == 3050
    without = {key: value for key, value in moments.state().items() if not key.startswith("reservoir")}
    old = FeatureMoments.from_state(without)  # as earlier versions wrote it
    assert old.statistics({}, "x").reservoir is None
    restored.merge(old)
    assert restored.statistics({}, "x").reservoir is None
    restored.reset()
    restored.update({"features": rows})
    assert same(restored.statistics({}, "x").reservoir, expected)


def test_files_keep_the_sample(tmp_path):
    statistics = accumulated(features(2500, 3)).statistics({}, "x")
    back = Statistics.load(statistics.save(tmp_path / "with"))
    assert same(back.reservoir, statistics.reservoir)
    assert Statistics.load(statistics.save(tmp_path / "without", rows=False)).reservoir is None
    merged = back.merge(accumulated(features(100, 4)).statistics({}, "y"))
    assert merged.reservoir.n == merged.n == 2600
    assert statistics.merge(Statistics.load(tmp_path / "without.npz")).reservoir is None
    with np.load(tmp_path / "with.npz") as archive:
        entries = dict(archive)
    entries["reservoir_keys"] = entries["reservoir_keys"][:-1]
    np.savez(tmp_path / "bad", **entries)
    with pytest.raises(ValueError, match=r"bad.npz: reservoir_keys: expected shape \(2048,\) for n = 2500"):
        Statistics.load(tmp_path / "bad.npz")
    del entries["reservoir_keys"]
    np.savez(tmp_path / "half", **entries)
    with pytest.raises(ValueError, match=r"half.npz: the entry reservoir_keys is missing"):
        Statistics.load(tmp_path / "half.npz")


def test_the_command_leaves_the_sample_out(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    for options, has_sample in (([], True), (["--no-rows"], False)):
        out = tmp_path / f"{has_sample}.npz"
        words = ["stats", str(tmp_path / "images.npy"), "-o", str(out), "--dims", "64", "--quiet", "--device", "cpu"]
        assert main([*words, *options]) == 0
        assert (Statistics.load(out).reservoir is not None) is has_sample


def test_statistics_and_their_sample_are_of_one_set():
    with pytest.raises(ValueError, match="reservoir: expected a sample of n = 5 rows of 3 features, got one of 9"):
        Statistics(np.zeros(3), np.eye(3), 5, reservoir=filled(numbered(0, 9)))
