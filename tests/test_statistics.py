"""Statistics: checks, the file format, merging, and comparability."""

import errno
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from tolerances import COVARIANCE, FEW_ROUNDINGS, MOMENTS

from fastfid import Moments, Statistics, frechet_distance
from fastfid._files import atomic_file
from fastfid.compat.pytorch_fid.fid_score import calculate_frechet_distance
from fastfid.statistics import check_compatible


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def some(rng):
    x = rng.standard_normal((50, 5))
    return Statistics(
        x.mean(0),
        np.cov(x.T),
        50,
        {"protocol": "pytorch-fid", "extractor": "e", "precision": "float32", "dims": 5, "source": "x"},
    )


@pytest.mark.parametrize(
    ("mu", "sigma", "n", "message"),
    [
        ([[0.0]], [[1.0]], None, "mu: expected shape"),
        ([], np.zeros((0, 0)), None, "mu: expected shape"),
        ([0.0, 1.0], [[1.0]], None, "sigma: expected shape"),
        ([np.nan], [[1.0]], None, "mu: has NaN"),
        ([0.0], [[np.inf]], None, "sigma: has NaN or infinite"),
        ([0.0], [[1.0]], 1, "at least 2 samples, got 1"),
    ],
)
def test_bad_values_are_refused(mu, sigma, n, message):
    with pytest.raises(ValueError, match=message):
        Statistics(mu, sigma, n)


def test_wrong_dtype_is_a_type_error():
    with pytest.raises(TypeError, match="mu: expected real numbers"):
        Statistics(np.array(["a"]), [[1.0]])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("mu", lambda masked: Statistics(masked, np.eye(2))),
        ("sigma", lambda masked: Statistics(np.zeros(2), masked[None].repeat(2, axis=0))),
        ("a: mu", lambda masked: frechet_distance((masked, np.eye(2)), (np.zeros(2), np.eye(2)))),
        ("b: sigma", lambda masked: frechet_distance((0.0, 1.0), (0.0, masked[:1]))),
        ("mu", lambda masked: calculate_frechet_distance(np.zeros(2), np.eye(2), masked, np.eye(2))),
    ],
)
@pytest.mark.parametrize("mask", [False, [False, True]])
def test_a_masked_array_is_a_type_error(name, call, mask):
    # np.asarray would drop the mask, and what is behind it would count.
    with pytest.raises(TypeError, match=f"^{name}: expected an array without a mask, got a masked array, float64 of"):
        call(np.ma.MaskedArray([1.0, 2.0], mask=mask))


def test_inputs_are_not_modified_and_dtype_is_float64(some):
    mu = np.zeros(3, np.float32)
    s = Statistics(mu, np.eye(3, dtype=np.float32))
    assert s.mu.dtype == s.sigma.dtype == np.float64
    assert mu.dtype == np.float32
    theirs = np.zeros(3)
    s = Statistics(theirs, np.eye(3))
    theirs[0] = 7
    assert s.mu[0] == 0


def test_file_round_trip(some, tmp_path):
    path = some.save(tmp_path / "s.npz")
    back = Statistics.load(path)
    np.testing.assert_array_equal(back.mu, some.mu)
    np.testing.assert_array_equal(back.sigma, some.sigma)
    assert back.n == 50
    assert back.meta["protocol"] == "pytorch-fid"
    assert back.meta["source"] == "x"
    assert back.name == str(path)
    with np.load(path, allow_pickle=False) as peer:  # as pytorch-fid reads it
        np.testing.assert_array_equal(peer["mu"][:], some.mu)
        assert peer["sigma"].dtype == np.float64


def test_suffix_is_added_as_numpy_does(some, tmp_path):
    assert some.save(tmp_path / "plain") == tmp_path / "plain.npz"
    with pytest.raises(FileExistsError):
        some.save(tmp_path / "plain")


def test_existing_file_is_never_overwritten_silently(some, tmp_path):
    path = tmp_path / "s.npz"
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="Existing output file"):
        some.save(path)
    assert path.read_bytes() == b"precious"
    some.save(path, overwrite=True)
    assert Statistics.load(path).n == 50


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "s.npz"
    writing = atomic_file(path, overwrite=False)
    writing.__enter__().write(b"mine")
    path.write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        writing.__exit__(None, None, None)
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["s.npz"]


def test_full_disk_leaves_the_old_file_whole(some, tmp_path, monkeypatch):
    path = some.save(tmp_path / "s.npz")
    before = path.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        some.save(path, overwrite=True)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["s.npz"]


FULL = """
import resource, sys
import numpy as np
from fastfid import Statistics
x = np.random.default_rng(0).standard_normal((200, 64))
statistics = Statistics(x.mean(0), np.cov(x.T), 200)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the system refuses every byte beyond, as on a full disk
try:
    statistics.save(sys.argv[1], overwrite=True)
except OSError as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_the_old_file_whole(some, tmp_path):
    path = some.save(tmp_path / "s.npz")
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["s.npz"]


def test_file_mode_follows_the_umask(some, tmp_path):
    old = os.umask(0o027)
    try:
        path = some.save(tmp_path / "s.npz")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_peers_files_load(tmp_path):
    path = tmp_path / "peer.npz"
    np.savez(path, mu=np.zeros(3, np.float32), sigma=np.eye(3), extra=np.arange(3), mu_s=np.zeros(2))
    s = Statistics.load(path)
    assert s.n is None
    assert dict(s.meta) == {}
    assert s.mu.dtype == np.float64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(2)}, "no sigma in it"),
        ({"arr_0": np.zeros(2)}, "no mu and no sigma"),
        ({"mu": np.zeros((2, 2)), "sigma": np.eye(2)}, "mu: expected shape"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, "declares shape|expected shape"),
        ({"mu": np.array([np.nan, 0]), "sigma": np.eye(2)}, "mu: has NaN"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "expected real numbers"),
        ({"mu": np.array([None, 1], dtype=object), "sigma": np.eye(2)}, "Python objects"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "n": np.float64(3)}, "n: expected one integer"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "n": np.int64(1)}, "at least 2 samples"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "meta": np.array("[]")}, "meta: expected a JSON object"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "meta": np.array("{")}, "meta: expected a JSON object"),
        ({"mu": np.zeros(2), "sigma": np.eye(2), "meta": np.array('{"protocol": NaN}')}, "protocol: expected a string"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        Statistics.load(path)
    assert str(caught.value).startswith(str(path))


def test_merge_is_the_statistics_of_the_union(rng):
    x, y = rng.standard_normal((30, 4)), 3 + rng.standard_normal((50, 4))
    both = np.concatenate([x, y])
    merged = Statistics(x.mean(0), np.cov(x.T), 30).merge(Statistics(y.mean(0), np.cov(y.T), 50))
    np.testing.assert_allclose(merged.mu, both.mean(0), rtol=MOMENTS)
    np.testing.assert_allclose(merged.sigma, np.cov(both.T), rtol=MOMENTS, atol=FEW_ROUNDINGS)
    assert merged.n == 80


def side(x):
    moments = Moments(x.shape[1])
    moments.update(x)
    return Statistics.from_moments(moments)


def test_merge_keeps_the_rows_while_they_are_few(rng):
    x = rng.standard_normal((12, 20)).astype(np.float32)
    merged = side(x[:5]).merge(side(x[5:]))
    np.testing.assert_array_equal(merged.rows, x)
    more = merged.merge(side(x))
    assert more.n == 24
    assert more.rows is None
    expected = np.cov(np.concatenate([x, x]).T.astype(np.float64))
    np.testing.assert_allclose(more.sigma, expected, rtol=0, atol=COVARIANCE * np.abs(expected).max())


def test_merge_needs_n(some):
    with pytest.raises(ValueError, match="must know their number"):
        some.merge(Statistics(some.mu, some.sigma))


def test_one_sample_is_no_statistics(rng):
    moments = Moments(3)
    moments.update(rng.standard_normal((1, 3)))
    with pytest.raises(ValueError, match="photos: a covariance needs at least 2 images, got 1"):
        Statistics.from_moments(moments, name="photos")


@pytest.mark.parametrize("key", ["protocol", "extractor", "precision"])
def test_statistics_that_do_not_belong_together(some, key):
    other = Statistics(some.mu, some.sigma, 50, {**some.meta, key: "other"}, name="b.npz")
    with pytest.raises(ValueError, match=f"was made with {key} .*b.npz with other"):
        check_compatible(some, other)
    check_compatible(some, other, force=True)
    check_compatible(some, Statistics(some.mu, some.sigma))  # a peer's file says nothing


def test_dims_are_never_forced(some):
    with pytest.raises(ValueError, match=r"5 dims.*3"):
        check_compatible(some, Statistics(np.zeros(3), np.eye(3)), force=True)


def test_n_is_an_integer():
    known = Statistics([0.0], [[1.0]], n=np.int64(7))
    assert type(known.n) is int
    with pytest.raises(TypeError, match=r"n: expected an integer, got 7\.5"):
        Statistics([0.0], [[1.0]], n=7.5)


def test_a_long_name_can_be_saved(tmp_path):
    path = tmp_path / ("x" * 250 + ".npz")
    assert Statistics([0.0], [[1.0]]).save(path) == path
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("n", [2**62 + 1, 2**63, np.uint64(2**63), 10**40])
def test_more_samples_than_can_be_counted(tmp_path, n):
    with pytest.raises(ValueError, match=r"^n: expected at most 2\^62 samples, got "):
        Statistics([0.0], [[1.0]], n)
    if n < 2**64:
        np.savez(tmp_path / "a.npz", mu=np.zeros(1), sigma=np.eye(1), n=np.uint64(n))
        with pytest.raises(ValueError, match=r"a\.npz: n: expected at most 2\^62 samples"):
            Statistics.load(tmp_path / "a.npz")


def test_the_most_samples_that_can_be_counted(tmp_path):
    most = Statistics([0.0], [[1.0]], 2**62)
    assert Statistics.load(most.save(tmp_path / "a")).n == 2**62
    with pytest.raises(ValueError, match=r"merge: n: expected at most 2\^62 samples in all"):
        most.merge(Statistics([0.0], [[1.0]], 2))
    half = Statistics([0.0], [[1.0]], 2**61)
    assert half.merge(half).n == 2**62


SAVES = """
import sys, time
import numpy as np
from fastfid import Statistics
mine = int(sys.argv[2])
statistics = Statistics(np.full(40, mine), np.eye(40) * mine, 100 + mine)
won = 0
for round in range(int(sys.argv[3])):
    try:
        statistics.save(f"{sys.argv[1]}/{round}.npz", overwrite=sys.argv[4] == "True")
        won += 1
    except FileExistsError:
        pass
print(won)
"""


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_processes_that_save_one_file(tmp_path, overwrite):
    rounds = 200
    command = [sys.executable, "-c", SAVES, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(mine), str(rounds), str(overwrite)], stdout=subprocess.PIPE, text=True)
        for mine in (1, 2)
    ]
    won = [int(process.communicate()[0]) for process in processes]
    assert won == [rounds, rounds] if overwrite else sum(won) == rounds
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{i}.npz" for i in range(rounds))
    for path in tmp_path.iterdir():
        statistics = Statistics.load(path)
        mine = statistics.n - 100
        assert mine in (1, 2)
        assert (statistics.mu == mine).all()
        assert (statistics.sigma == np.eye(40) * mine).all()
