"""Statistics with a spatial part: their file, the sFID from it, the cache, merging and states."""

import dataclasses
import json
import pickle
import re
import time

import numpy as np
import pytest
from metric_cases import frechet
from stubs import AllOutputs, GridMeans, TwoGrids
from tolerances import MOMENTS, ROUNDED_TO_FLOAT32, SCIPYS_ROOT_SMALL, SINGULAR_FROM_FILE

from fastfid import Evaluator, Statistics, compute_fid, compute_statistics, evaluate
from fastfid.batches.fixed import fixed_from_state, state_of_fixed
from fastfid.cli import main
from fastfid.errors import FastfidWarning


def images(n, seed, high=256):
    return np.random.default_rng((n, seed)).integers(0, high, (n, 9, 12, 3), dtype=np.uint8)


def spatial_rows(pictures):
    return np.stack([GridMeans(3).prepare(image) for image in pictures]).astype(float)


def expect_moments(mu, sigma, rows):
    np.testing.assert_allclose(mu, rows.mean(0), rtol=MOMENTS)
    expected = np.cov(rows.T)
    np.testing.assert_allclose(sigma, expected, rtol=0, atol=MOMENTS * np.abs(expected).max())


@pytest.fixture(scope="module")
def sets():
    return images(60, 1), images(50, 2, 200)


@pytest.fixture
def files(sets, tmp_path):
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for pictures, path in zip(sets, paths, strict=True):
        compute_statistics(pictures, extractor=TwoGrids(), spatial=True).save(path)
    return paths


@pytest.fixture
def adm(sets, tmp_path):
    """A reference as ADM's are: no n, no provenance."""
    known = compute_statistics(sets[0], extractor=TwoGrids(), spatial=True)
    path = tmp_path / "adm.npz"
    spatial = known.spatial
    np.savez(path, mu=known.mu, sigma=known.sigma, mu_s=spatial.mu.astype(np.float32), sigma_s=spatial.sigma)
    return path


def test_the_file_is_what_adm_reads(sets, files):
    rows = spatial_rows(sets[0])
    with np.load(files[0], allow_pickle=False) as stored:
        assert {"mu", "sigma", "mu_s", "sigma_s"} < set(stored)
        assert stored["mu_s"].dtype == stored["sigma_s"].dtype == np.float64
        expect_moments(stored["mu_s"], stored["sigma_s"], rows)


def test_round_trip(files, tmp_path):
    first = Statistics.load(files[0])
    again = Statistics.load(first.save(tmp_path / "again.npz"))
    for found in (first, again):
        assert (found.d, found.spatial.d, found.spatial.n, found.spatial.name) == (12, 27, 60, found.name)
        assert found.spatial.meta == found.meta
    np.testing.assert_array_equal(again.spatial.sigma, first.spatial.sigma)
    np.testing.assert_array_equal(again.spatial.reservoir.rows, first.spatial.reservoir.rows)
    assert Statistics.load(first.save(tmp_path / "few.npz", rows=False)).spatial.reservoir is None
    assert Statistics.load(files[0], spatial=False).spatial is None


def test_the_sfid_of_files_is_the_truth(sets, files):
    truth = frechet(*map(spatial_rows, sets))
    for real in (sets[0], files[0]):
        for fake in (sets[1], files[1]):
            found = evaluate(real, fake, metrics=["fid", "sfid"], extractor=TwoGrids())
            assert found["sfid"].value == pytest.approx(truth, rel=SCIPYS_ROOT_SMALL)
            assert found["sfid"].standard_error > 0
            assert found["fid"].value == pytest.approx(compute_fid(*sets, extractor=TwoGrids()), abs=SINGULAR_FROM_FILE)
    alone = evaluate(*files, metrics=["sfid"])
    assert alone["sfid"].value == pytest.approx(truth, rel=SCIPYS_ROOT_SMALL)


def test_the_sfid_of_adms_reference(sets, adm):
    extractor = TwoGrids()
    extractor.protocol = "tensorflow"
    with pytest.warns(FastfidWarning, match=r"adm\.npz does not say its protocol and is taken for tensorflow"):
        found = evaluate(adm, sets[1], metrics=["sfid"], extractor=extractor)
    # mu_s is float32: a difference of grey levels around 100 loses two digits of it in the mean term.
    assert found["sfid"].value == pytest.approx(frechet(*map(spatial_rows, sets)), rel=100 * ROUNDED_TO_FLOAT32)
    assert found["sfid"].standard_error_of == "generated"


def test_fewer_images_than_spatial_dims():
    """SciPy's root of singular matrices is good to half the digits: the trace is that of the rows' singular values."""
    few = images(20, 3), images(15, 4)
    known = compute_statistics(few[0], extractor=TwoGrids(), spatial=True)
    assert known.spatial.rows.shape == (20, 27)
    x, y = map(spatial_rows, few)
    a, b = ((rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows in (x, y))
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * trace
    found = evaluate(known, few[1], metrics=["sfid"], extractor=TwoGrids())["sfid"]
    assert found.value == pytest.approx(truth, rel=SCIPYS_ROOT_SMALL)


@pytest.mark.parametrize("which", [0, 1])
def test_statistics_without_the_spatial_part(sets, files, tmp_path, which):
    plain = compute_statistics(sets[which], extractor=TwoGrids()).save(tmp_path / "plain.npz")
    sides = [*files]
    sides[which] = plain
    for others in (files, sets):
        sides[1 - which] = others[1 - which]
        extractor = TwoGrids()
        says = re.escape(f"sfid: {plain} holds no statistics of the spatial features (mu_s, sigma_s); make it again")
        with pytest.raises(ValueError, match=f"^{says}.*--spatial"):
            evaluate(*sides, metrics=["fid", "sfid"], extractor=extractor)
        assert extractor.seen == 0
    with pytest.raises(ValueError, match="holds no statistics of the spatial features"):
        compute_statistics(plain, spatial=True)


def test_an_extractor_without_spatial_features_makes_none(sets):
    with pytest.raises(ValueError, match="sfid: needs the output spatial; the extractor gives features at 12 dims"):
        compute_statistics(sets[0], extractor=GridMeans(), spatial=True)


def test_spatial_dims_that_the_extractor_has_not(sets, files):
    extractor = AllOutputs()
    extractor.identity = "two-grids"
    with pytest.raises(ValueError, match=r"a\.npz has 27 spatial dims, the extractor of the other side gives 12"):
        evaluate(files[0], sets[1], metrics=["fid", "sfid"], extractor=extractor)
    assert evaluate(files[0], sets[1], metrics=["fid"], extractor=extractor)["fid"].value > 0


def test_statistics_come_back_with_all_parts(files):
    assert compute_statistics(files[0]).spatial.d == 27


def some(n=9, **options):
    return Statistics([0.0], [[1.0]], n, **options)


@pytest.mark.parametrize(
    ("spatial", "error", "message"),
    [
        (np.zeros(3), TypeError, "spatial: expected Statistics or None, got ndarray"),
        (some(8), ValueError, "spatial: expected n = 9, as the features have; got 8"),
        (some(spatial=some()), ValueError, "spatial: expected statistics without a spatial part"),
    ],
)
def test_what_is_no_spatial_part(spatial, error, message):
    with pytest.raises(error, match=message):
        some(spatial=spatial)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu_s": np.zeros((2, 2)), "sigma_s": np.eye(2)}, "mu_s: expected shape"),
        ({"mu_s": np.zeros(2), "sigma_s": np.eye(3)}, "sigma_s: "),
        ({"mu_s": np.array([np.nan, 0]), "sigma_s": np.eye(2)}, "mu_s, sigma_s: mu: has NaN"),
    ],
)
def test_bad_spatial_parts_are_refused_by_name(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2), **arrays)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}"):
        Statistics.load(path)
    assert Statistics.load(path, spatial=False).d == 2  # a FID does not need them


def test_a_new_name_is_the_parts_too():
    known = dataclasses.replace(some(spatial=some(None)), name="x", meta={"protocol": "none"})
    assert (known.spatial.name, known.spatial.meta, known.spatial.n) == ("x", {"protocol": "none"}, 9)


def test_merge_is_the_statistics_of_the_union(sets):
    parts = [
        compute_statistics(sets[0][part], extractor=TwoGrids(), spatial=True) for part in np.split(np.arange(60), 2)
    ]
    merged = parts[0].merge(parts[1])
    rows = spatial_rows(sets[0])
    expect_moments(merged.spatial.mu, merged.spatial.sigma, rows)
    assert (merged.spatial.n, merged.spatial.reservoir.n) == (60, 60)
    assert parts[0].merge(compute_statistics(sets[0], extractor=TwoGrids())).spatial is None


def test_states_and_reprs(files):
    known = Statistics.load(files[0])
    assert "d=12, spatial_d=27, n=60" in repr(known)
    assert "d of the spatial features" in known._repr_html_()
    for again in (fixed_from_state(state_of_fixed(known)), pickle.loads(pickle.dumps(known))):
        np.testing.assert_array_equal(again.spatial.sigma, known.spatial.sigma)
        assert (again.spatial.n, again.spatial.name) == (60, str(files[0]))
    with pytest.raises(TypeError, match=r"state\['spatial'\]: expected a mapping"):
        fixed_from_state({**state_of_fixed(known), "spatial": 3})
    with pytest.raises(ValueError, match=r"state\['spatial'\]: state: the key 'mu' is missing"):
        fixed_from_state({**state_of_fixed(known), "spatial": {}})


def test_the_cache_keeps_the_parts_apart(sets, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    now = time.time
    monkeypatch.setattr("time.time", lambda: now() + 3600)  # fresh files are not kept
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for pictures, path in zip(sets, paths, strict=True):
        np.save(path, pictures)

    def run(*metrics):
        extractor = TwoGrids()
        return extractor, evaluate(*paths, metrics=metrics, extractor=extractor, cache=True)

    assert run("fid")[0].seen == 110
    entries = sorted((tmp_path / "cache" / "statistics").iterdir())
    assert run("fid")[0].seen == 0
    extractor, fresh = run("fid", "sfid")  # the spatial part is not there
    assert extractor.seen == 110
    assert fresh.cached == {"real": False, "fake": False}
    assert set(entries) < set((tmp_path / "cache" / "statistics").iterdir())
    for entry in entries:
        assert Statistics.load(entry).spatial is None
    extractor, cached = run("fid", "sfid")
    assert (extractor.seen, cached.cached) == (0, {"real": True, "fake": True})
    for name in ("fid", "sfid"):
        assert cached[name].value == pytest.approx(fresh[name].value, rel=SCIPYS_ROOT_SMALL)
        assert cached[name].standard_error == pytest.approx(fresh[name].standard_error, rel=SCIPYS_ROOT_SMALL)
    assert run("sfid")[0].seen == run("fid")[0].seen == 0
    assert run("fid", "kid")[0].seen == 110
    extractor = TwoGrids()
    known = compute_statistics(paths[0], extractor=extractor, cache=True, spatial=True)
    assert (extractor.seen, known.spatial.d) == (0, 27)


def test_the_command_line_takes_files(files, capfd):
    assert main([*map(str, files), "--metrics", "fid,sfid", "--json", "--quiet"]) == 0
    record = json.loads(capfd.readouterr().out)
    expected = evaluate(*files, metrics=["fid", "sfid"])
    assert [row["value"] for row in record["metrics"]] == [expected["fid"].value, expected["sfid"].value]


def test_stats_of_the_command_line(tmp_path, weights, capfd):
    sides = [tmp_path / name for name in ("a.npy", "b.npy")]
    for seed, side in enumerate(sides):
        np.save(side, images(4, seed))
    options = ["--protocol", "tensorflow", "--device", "cpu"]
    assert main(["stats", str(sides[0]), "-o", str(tmp_path / "s.npz"), "--spatial", *options]) == 0
    assert "n = 4, d = 2048 and 2023 spatial" in capfd.readouterr().err
    printed = []
    for real in (sides[0], tmp_path / "s.npz"):
        assert main([str(real), str(sides[1]), "--metrics", "fid,sfid", *options, "--json", "--quiet"]) == 0
        printed.append([row["value"] for row in json.loads(capfd.readouterr().out)["metrics"]])
    assert printed[1] == pytest.approx(printed[0], abs=SINGULAR_FROM_FILE, rel=SINGULAR_FROM_FILE)
    with pytest.raises(SystemExit) as ended:
        main([*map(str, sides), "--spatial"])
    assert ended.value.code == 2


def test_an_evaluator_with_a_reference_of_all_parts(sets, files):
    """The Inception Score is of the generated set, so that any reference goes with it."""
    evaluator = Evaluator(metrics=["fid", "sfid", "is"], real=files[0], extractor=TwoGrids())
    evaluator.update(sets[1])
    found = evaluator.compute()
    expected = evaluate(*sets, metrics=["fid", "sfid", "is"], extractor=TwoGrids())
    for name in expected:
        assert found[name].value == pytest.approx(expected[name].value, rel=SCIPYS_ROOT_SMALL)
    again = Evaluator(metrics=["fid", "sfid", "is"], real=files[0], extractor=TwoGrids())
    again.load_state_dict(evaluator.state_dict())
    assert again.compute()["sfid"].value == found["sfid"].value
