"""compute_fid, compute_statistics, frechet_distance and FID, with an extractor with known features."""

import copy
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.linalg
from stubs import GridMeans
from tolerances import ANOTHER_ORDER, EQUAL_SETS, FEW_ROUNDINGS, SCIPYS_ROOT_SMALL

import fastfid
from fastfid import FID, Statistics, _core, compute_fid, compute_statistics, evaluate, frechet_distance
from fastfid.errors import FastfidWarning, SkippedImagesWarning, SuspiciousInputWarning
from fastfid.metrics.moments import FeatureMoments


def images(n, seed, low=0, high=256, size=(9, 11)):
    return np.random.default_rng(seed).integers(low, high, (n, *size, 3), dtype=np.uint8)


def features(batch, extractor):
    return np.stack([extractor.prepare(image) for image in batch]).astype(np.float64)


def scipy_fid(x, y):
    """The formula of Heusel et al. 2017 with SciPy's sqrtm, as pytorch-fid evaluates it."""
    s1, s2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * root.real)


def test_value_is_the_formulas():
    extractor = GridMeans()
    a, b = images(60, 1), images(70, 2, high=200)
    truth = scipy_fid(features(a, extractor), features(b, extractor))
    assert compute_fid(a, b, extractor=extractor) == pytest.approx(truth, rel=SCIPYS_ROOT_SMALL)


def test_thin_sides_are_exact():
    extractor = GridMeans(cells=8)  # d = 192
    a, b = images(20, 1), images(30, 2, high=200)
    x, y = features(a, extractor), features(b, extractor)
    # Without covariances: nuclear norm of the product of the centred rows (numerics.md, F1).
    xc, yc = (x - x.mean(0)) / np.sqrt(19), (y - y.mean(0)) / np.sqrt(29)
    nuclear = np.linalg.svd(xc @ yc.T, compute_uv=False).sum()
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + (xc**2).sum() + (yc**2).sum() - 2 * nuclear
    assert compute_fid(a, b, extractor=extractor) == pytest.approx(truth, rel=ANOTHER_ORDER)
    with pytest.warns(SuspiciousInputWarning, match="both sides hold the same images"):
        assert abs(compute_fid(a, a, extractor=extractor)) < EQUAL_SETS


def test_record():
    a, b = images(60, 1), images(70, 2)
    record = compute_fid(a, b, extractor=GridMeans(), return_info=True)
    assert record["fid"] == compute_fid(a, b, extractor=GridMeans())
    assert record["numerical_lower"] <= record["fid"] <= record["numerical_upper"]
    assert record["n"] == {"real": 60, "fake": 70}
    assert record["dims"] == 12
    assert record["extractor"] == {"real": "grid-means", "fake": "grid-means"}
    assert record["versions"]["pillow"]
    assert isinstance(record["note"], str)
    assert record["skipped"] == {"real": [], "fake": []}
    assert record["seconds"]["total"] > 0


def test_statistics_need_no_network():
    a, b = images(60, 1), images(70, 2)
    sa, sb = (compute_statistics(x, extractor=GridMeans()) for x in (a, b))
    assert sa.meta["extractor"] == "grid-means"
    assert sa.n == 60
    assert compute_fid(sa, sb, dims=64) == compute_fid(a, b, extractor=GridMeans())  # dims is ignored then


def test_files_mix_with_images(tmp_path):
    a, b = images(60, 1), images(70, 2)
    path = compute_statistics(a, extractor=GridMeans()).save(tmp_path / "a.npz")
    mixed = compute_fid(str(path), b, extractor=GridMeans())
    assert mixed == pytest.approx(compute_fid(a, b, extractor=GridMeans()), rel=ANOTHER_ORDER)


class Untouchable(GridMeans):
    def forward(self, batch):
        raise AssertionError("the network must not run")


def test_what_cannot_be_compared_is_refused_before_the_network_runs():
    known = Statistics(np.zeros(5), np.eye(5), name="five.npz")
    with pytest.raises(ValueError, match=r"five\.npz was made with dims 5, and the extractor .* has 12: make it again"):
        compute_fid(known, images(4, 1), extractor=Untouchable())
    other = Statistics(np.zeros(12), np.eye(12), meta={"protocol": "clean"}, name="c.npz")
    with pytest.raises(ValueError, match=r"c\.npz was made with protocol clean, .* has none: pass --force"):
        compute_fid(other, images(4, 1), extractor=Untouchable())
    with pytest.raises(AssertionError, match="must not run"):
        compute_fid(other, images(4, 1), extractor=Untouchable(), force=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dims": 100}, ValueError, "dims: expected one of 64, 192, 768, 2048"),
        ({"protocol": "unknown"}, ValueError, "protocol: expected one of"),
        ({"protocol": ["clean"]}, ValueError, r"protocol: expected one of .* got \['clean'\]"),
        ({"precision": "bogus"}, ValueError, "precision: expected one of float32, tf32, float16; got 'bogus'"),
        ({"precision": ["tf32"]}, ValueError, r"precision: expected one of .* got \['tf32'\]"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"nonsense": 1}, TypeError, "nonsense"),
        ({"num_workers": -1}, ValueError, "num_workers"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"max_errors": -1}, ValueError, "max_errors"),
        ({"device": "gpu"}, ValueError, "device: expected 'auto', 'cpu', 'cuda', 'cuda:N' or N; got 'gpu'"),
        ({"device": True}, ValueError, "device: expected 'auto'"),
        ({"progress": "yes"}, ValueError, "progress: expected True, False, 'auto' or 'lines'"),
        ({"extractor": "dino.onnx"}, TypeError, r"extractor: expected a fastfid\.FeatureExtractor, got str 'dino"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        compute_fid(images(3, 1), images(3, 2), **arguments)
    if "dims" not in arguments:  # which two statistics do not ask for
        known = Statistics(np.zeros(2), np.eye(2))
        with pytest.raises(error, match=message):
            compute_fid(known, known, **arguments)
        with pytest.raises(error, match=message):
            compute_statistics(known, **arguments)


def test_two_statistics_ask_for_no_device(monkeypatch):
    monkeypatch.setattr("fastfid._core.cuda_driver", lambda: (0, "there is none"))
    known = Statistics(np.zeros(2), np.eye(2))
    with pytest.warns(FastfidWarning, match="neither statistics nor statistics says its protocol"):
        record = compute_fid(known, known, device="cuda:7", return_info=True)
    assert record["fid"] == 0
    assert record["device"] is None
    with pytest.raises(ValueError, match="device: expected 'auto'"):
        FID(device="gpu")


def test_float_images_are_refused_with_advice():
    with pytest.raises(TypeError, match="uint8"):
        compute_fid(images(3, 1) / 255.0, images(3, 2), extractor=GridMeans())


def test_one_image_is_not_a_set():
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        compute_fid(images(1, 1), images(3, 2), extractor=GridMeans())


def test_skipped_images_are_said(tmp_path):
    from PIL import Image

    for i, image in enumerate(images(5, 3)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    with pytest.raises(fastfid.ImageError, match=r"2\.png"):
        compute_statistics(tmp_path, extractor=GridMeans())
    with pytest.warns(SkippedImagesWarning, match=r"skipped 1 unreadable images: .*2\.png"):
        assert compute_statistics(tmp_path, extractor=GridMeans(), on_error="skip").n == 4
    with pytest.warns(SkippedImagesWarning):
        record = compute_fid(tmp_path, images(5, 1), extractor=GridMeans(), on_error="skip", return_info=True)
    assert [item["name"].endswith("2.png") for item in record["skipped"]["real"]] == [True]


# frechet_distance


def test_closed_forms():
    eye = np.eye(2048)
    assert frechet_distance((np.zeros(2048), eye), (np.ones(2048), eye)) == 2048
    assert frechet_distance(([0.0], [[1.0]]), ([3.0], [[4.0]])) == 10
    assert frechet_distance((0.0, 1.0), (3.0, 4.0)) == 10  # scalars, as pytorch-fid takes them


def test_info_holds_the_bounds():
    x = np.random.default_rng(0).standard_normal((100, 6))
    tol = 1e-10  # asked for
    info = frechet_distance((x.mean(0), np.cov(x.T)), (np.zeros(6), np.eye(6)), tol=tol, return_info=True)
    assert info["numerical_lower"] <= info["fid"] <= info["numerical_upper"]
    assert info["numerical_upper"] - info["numerical_lower"] < 2 * tol * info["trace_sqrt_product"]


def test_indefinite_covariance_is_named(tmp_path):
    bad = tmp_path / "bad.npz"
    np.savez(bad, mu=np.zeros(2), sigma=np.array([[-1.0, 1.0], [1.0, 1.0]]))
    with pytest.raises(fastfid.NumericalError, match=r"Imaginary component.*bad\.npz"):
        frechet_distance(Statistics.load(bad), (np.zeros(2), np.eye(2)))
    with pytest.raises(ValueError, match=r"^Imaginary component"):
        frechet_distance((np.zeros(2), [[-1.0, 1.0], [1.0, 1.0]]), (np.zeros(2), np.eye(2)))


@pytest.mark.parametrize("bad", [3, (np.zeros(2),), "path", None])
def test_what_is_no_side(bad):
    with pytest.raises(TypeError, match="a: expected Statistics, DeviceMoments or a tuple"):
        frechet_distance(bad, (np.zeros(2), np.eye(2)))


def test_an_error_beyond_float64_leaves_the_value():
    far = Statistics(np.full(4, 1e150), np.eye(4), 1000, {"protocol": "none"}, name="far")
    near = Statistics.from_features(np.random.default_rng(0).standard_normal((200, 4)) * 1e30, {"protocol": "none"})
    (found,) = evaluate(far, near, metrics=["fid"]).values()
    assert found.value == pytest.approx(4e300, rel=FEW_ROUNDINGS)
    assert found.standard_error is None
    assert found.no_standard_error == "the standard error exceeds the range of float64"


def test_sides_name_themselves():
    with pytest.raises(ValueError, match="b: sigma: expected shape"):
        frechet_distance((np.zeros(2), np.eye(2)), (np.zeros(2), np.eye(3)))


# FID


def filled(a, b, step):
    fid = FID(extractor=GridMeans())
    for start in range(0, len(a), step):
        fid.update(a[start : start + step], real=True)
    for start in range(0, len(b), step):
        fid.update(b[start : start + step], False)
    return fid


def test_streaming_gives_the_same_bits():
    a, b = images(60, 1), images(45, 2)
    truth = compute_fid(a, b, extractor=GridMeans())
    for step in (1, 7, 60):
        assert filled(a, b, step).compute() == truth


def test_images_may_come_channels_first():
    a, b = images(60, 1), images(45, 2)
    assert filled(a.transpose(0, 3, 1, 2), b, 9).compute() == filled(a, b, 9).compute()


def test_merge_of_shards():
    a, b = images(60, 1), images(45, 2)
    whole = filled(a, b, 10)
    left, right = filled(a[:20], b[:40], 10), filled(a[20:], b[40:], 10)
    left.merge(right)
    assert left.real.n == 60
    assert left.compute() == pytest.approx(whole.compute(), rel=ANOTHER_ORDER)


def test_state_goes_to_another_process_and_back():
    a, b = images(20, 1), images(25, 2)
    fid = filled(a, b, 10)
    other = FID(extractor=GridMeans())
    other.load_state_dict(fid.state_dict())
    assert other.compute() == fid.compute()
    other.update(a, real=True)
    assert fid.real.n == 20
    with pytest.raises(ValueError, match="dims"):
        FID(extractor=GridMeans(3)).load_state_dict(fid.state_dict())
    with pytest.raises(ValueError, match="dims"):
        FID(extractor=GridMeans(3)).merge(fid)


class OtherMeans(GridMeans):
    identity = "other-means"


@pytest.mark.parametrize("adopt", ["load_state_dict", "merge"])
def test_what_was_adopted_stays_with_its_network(monkeypatch, adopt):
    """When the network is loaded, it is compared with the merged or loaded state."""
    fid = filled(images(20, 1), images(25, 2), 10)
    other = FID(dims=64, protocol="none")
    other.dims = 12
    other._moments = {real: FeatureMoments(12) for real in (True, False)}
    if adopt == "merge":
        other.merge(fid)
    else:
        other.load_state_dict(fid.state_dict())
    assert other.real.meta["extractor"] == "grid-means"
    assert other.state_dict()["provenance"]["extractor"] == "grid-means"
    monkeypatch.setattr("fastfid.batches.fid.make_extractor", lambda *args: OtherMeans())
    with pytest.raises(ValueError, match="other-means"):
        other.update(images(3, 3), real=True)
    assert other.compute() == fid.compute()


def test_pickling():
    fid = filled(images(20, 1), images(25, 2), 10)
    assert pickle.loads(pickle.dumps(fid)).compute() == fid.compute()
    assert copy.deepcopy(fid).compute() == fid.compute()


@pytest.mark.parametrize("state", [{}, {"real": 1}])
def test_what_is_no_state(state):
    with pytest.raises(ValueError, match="state: the keys"):
        FID(extractor=GridMeans()).load_state_dict(state)


@pytest.mark.parametrize("state", [None, 3, [("provenance", {}), ("real", {}), ("fake", {})]])
def test_a_state_is_a_mapping(state):
    with pytest.raises(TypeError, match=rf"state: expected a mapping, .*, got {type(state).__name__}"):
        FID(extractor=GridMeans()).load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"provenance": None}, TypeError, r"state\['provenance'\]: expected a mapping, got NoneType"),
        ({"real": None}, TypeError, r"state\['real'\]: expected a mapping, got NoneType"),
        ({"fake": [1]}, TypeError, r"state\['fake'\]: expected a mapping, got list"),
        ({"real": {}}, ValueError, "real: state: the key 'd' is missing"),
        ({"provenance": {"dims": np.zeros(2)}}, TypeError, r"state\['provenance'\]\['dims'\]: expected a string or"),
        ({"provenance": {"protocol": ["x"]}}, TypeError, r"state\['provenance'\]\['protocol'\]: expected a string or"),
        (
            {"fake": fastfid.Moments(12).state() | {"groups": 2}},
            ValueError,
            r"fake: state\['groups'\]: expected 0, .*, got 2",
        ),
    ],
)
def test_a_part_of_a_state_that_is_none(changes, error, message):
    fid = filled(images(20, 1), images(25, 2), 10)
    state = fid.state_dict() | changes
    with pytest.raises(error, match=message):
        fid.load_state_dict(state)
    assert (fid.real.n, fid.fake.n) == (20, 25)


def test_a_count_of_a_state_that_wraps_is_refused():
    fid = filled(images(20, 1), images(25, 2), 10)
    state = fid.state_dict()
    state["fake"]["counts"] = np.array([2**63 - 1])
    with pytest.raises(ValueError, match=r"fake: state\['counts'\]"):
        fid.load_state_dict(state)
    state["fake"] |= {"counts": np.array([25 - 3]), "scatter": state["fake"]["scatter"] * np.nan}
    with pytest.raises(ValueError, match=r"fake: state\['"):
        fid.load_state_dict(state)
    assert fid.fake.n == 25


def test_a_state_of_other_dims_is_refused():
    fid = filled(images(20, 1), images(25, 2), 10)
    state = fid.state_dict() | {"real": fastfid.Moments(3).state()}
    with pytest.raises(ValueError, match="3 dims, expected 12"):
        fid.load_state_dict(state)
    assert fid.real.n == 20


def test_update_says_what_a_folder_holds_besides(tmp_path):
    from PIL import Image

    Image.fromarray(images(1, 1)[0]).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.warns(fastfid.errors.FastfidWarning, match="1 other file"):
        FID(extractor=GridMeans()).update(tmp_path, real=True)


def test_reset():
    fid = filled(images(20, 1), images(25, 2), 10)
    fid.reset(real=False)
    assert fid.real.n == 20
    with pytest.raises(ValueError, match="fake: a covariance needs at least 2 images, got 0"):
        fid.compute()


def test_sides_go_into_frechet_distance():
    fid = filled(images(20, 1), images(25, 2), 10)
    assert frechet_distance(fid.real, fid.fake) == fid.compute()


def test_the_result_of_a_loop_is_that_of_evaluate():
    a, b = images(60, 1), images(70, 2, high=200)
    fid = filled(a, b, 10)
    result = fid.result()
    assert result == evaluate(a, b, extractor=GridMeans())["fid"]
    assert result.value == fid.compute()
    assert result.numerical_lower <= result.value <= result.numerical_upper
    assert result.bias > 0
    assert result.standard_error > 0
    assert result.standard_error_of == "both"
    narrower = {"tol": 1e-12}
    assert fid.result(**narrower).numerical_upper <= result.numerical_upper


def test_a_result_of_few_images_says_why_it_has_no_standard_error():
    result = filled(images(60, 1), images(8, 2), 10).result()
    assert (result.standard_error, result.bias) == (None, None)
    assert result.no_standard_error == "fake: n = 8 <= d = 12; sampling bias dominates"
    with pytest.raises(ValueError, match="fake: a covariance needs at least 2 images, got 0"):
        filled(images(60, 1), images(0, 2), 10).result()


def test_no_warnings_on_plain_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compute_fid(images(20, 1), images(25, 2), extractor=GridMeans())


def test_precision_is_refused_where_it_cannot_be():
    for run in (lambda **k: FID(dims=64, **k), lambda **k: compute_statistics(images(2, 1), dims=64, **k)):
        with pytest.raises(ValueError, match="precision: expected one of float32, tf32, float16; got 'half'"):
            run(precision="half")
        with pytest.raises(ValueError, match="the CPU has 'float32' only, got 'float16'"):
            run(precision="float16", device="cpu")


def test_another_precision_does_not_join():
    """A FID in float16 refuses a float32 state, even before its network is loaded."""
    other = FID(dims=64, protocol="none", precision="float16", device="auto")
    other.dims = 12
    state = filled(images(20, 1), images(25, 2), 10).state_dict()
    assert state["provenance"]["precision"] == "float32"
    with pytest.raises(ValueError, match="precision float16, the state with float32"):
        other.load_state_dict(state)


@pytest.mark.skipif(_core.cuda_driver()[0] > 0, reason="there is a CUDA device")
def test_the_distance_on_a_device_that_is_not_there():
    fid = filled(images(20, 1), images(25, 2), 10)
    with pytest.raises(fastfid.BackendUnavailable):
        fid.compute(device="cuda")
    with pytest.raises(ValueError, match="device: expected"):
        fid.compute(device="gpu")


def test_a_merge_during_an_update_loses_nothing():
    a, b = images(10, 1), images(2, 2)
    fid, other = FID(extractor=GridMeans()), FID(extractor=GridMeans())
    other.update(b, real=True)

    def stream():
        yield a[:5]
        fid.merge(other)
        yield a[5:]

    fid.update(stream(), real=True)
    assert fid.real.n == 12


def test_merge_with_itself():
    fid = filled(images(6, 1), images(7, 2), 3)
    fid.merge(fid)
    assert (fid.real.n, fid.fake.n) == (12, 14)


@pytest.mark.parametrize("real", ["fake", "real", 1, None, [True]])
def test_a_side_is_true_or_false(real):
    with pytest.raises(TypeError, match="real: expected True or False, got"):
        FID(extractor=GridMeans()).update(images(2, 1), real=real)


def test_dims_of_numpy_are_ints():
    assert type(FID(dims=np.int64(64)).dims) is int
    for dims in (64.0, "64", np.float32(64)):
        for make in (lambda: FID(dims=dims), lambda: compute_fid(images(2, 1), images(2, 2), dims=dims)):  # noqa: B023
            with pytest.raises(ValueError, match="dims: expected one of 64, 192, 768, 2048; got"):
                make()


def test_a_refusal_without_a_way_round_names_none():
    fid, other = filled(images(3, 1), images(3, 2), 3), FID(extractor=OtherMeans())
    for call in (lambda: other.merge(fid), lambda: other.load_state_dict(fid.state_dict())):
        with pytest.raises(ValueError, match="extractor") as caught:
            call()
        assert "force" not in str(caught.value)
    with pytest.raises(ValueError, match="force=True compares them"):
        frechet_distance(fid.real, Statistics.from_moments(fid._total(True), {"extractor": "another"}))


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [(str(w.message), w.category) for w in caught]


@pytest.mark.parametrize(
    ("name", "keys", "protocol", "sign", "is_suspicious"),
    [
        ("plain.npz", {}, "pytorch-fid", None, False),
        ("plain.npz", {}, "clean", None, False),
        ("x_clean_custom_na.npz", {}, "clean", "clean-fid", False),
        ("x_clean_custom_na.npz", {}, "pytorch-fid", "clean-fid", True),
        ("x_legacy_tensorflow_train_32.npz", {}, "tensorflow", "clean-fid", False),
        ("fid_stats_cifar10_train.npz", {}, "pytorch-fid", "TTUR", True),
        ("fid_stats_of_my_own.npz", {}, "pytorch-fid", None, False),
        ("data_clean_v2.npz", {}, "pytorch-fid", None, False),
        ("a_clean_subset_of_real.npz", {}, "pytorch-fid", None, False),
        ("adm.npz", {"mu_s": 0, "sigma_s": 0}, "pytorch-fid", "ADM", True),
        ("adm.npz", {"mu_s": 0, "sigma_s": 0}, "tensorflow", "ADM", False),
    ],
)
def test_statistics_that_do_not_say_their_protocol(tmp_path, name, keys, protocol, sign, is_suspicious):
    """One sentence for each such file; it survives --quiet where a sign speaks against the protocol in use."""
    extractor = GridMeans()
    extractor.protocol = protocol
    known = compute_statistics(images(60, 1), extractor=extractor)
    path = tmp_path / name
    np.savez(path, mu=known.mu, sigma=known.sigma, **keys)
    records = []
    (said,) = warnings_of(
        lambda: records.append(compute_fid(path, images(60, 2), extractor=extractor, return_info=True))
    )
    assert f"{name} does not say its protocol" in said[0]
    assert (sign is None) or sign in said[0]
    assert said[1] is (SuspiciousInputWarning if is_suspicious else FastfidWarning)
    assert ("use --protocol" in said[0]) == (is_suspicious or sign is None)
    (record,) = records
    assert record["assumed_protocol"]["fake"] is None
    assert (record["assumed_protocol"]["real"] == protocol) == (not is_suspicious)


def test_two_statistics_that_do_not_say_their_protocol(tmp_path):
    known = compute_statistics(images(60, 1), extractor=GridMeans())
    other = compute_statistics(images(60, 2), extractor=GridMeans())
    stated = Statistics(other.mu, other.sigma, 60, {"protocol": "clean"}, name="stated.npz")
    for name in ("a.npz", "b.npz", "c_clean_train_64.npz"):
        np.savez(tmp_path / name, mu=known.mu, sigma=known.sigma)
    a, b, c = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c_clean_train_64.npz"
    (said,) = warnings_of(lambda: compute_fid(a, b))
    assert said == (
        f"neither {a} nor {b} says its protocol: the distance means something only if it was one",
        FastfidWarning,
    )
    (said,) = warnings_of(lambda: compute_fid(a, c))
    assert f"{c} looks like clean" in said[0]
    assert said[1] is SuspiciousInputWarning
    (said,) = warnings_of(lambda: compute_fid(a, stated))
    assert "a.npz does not say its protocol (pytorch-fid if it is like most)" in said[0]
    assert said[1] is SuspiciousInputWarning
    (said,) = warnings_of(lambda: compute_fid(c, stated))
    assert said[1] is FastfidWarning


def test_a_wrong_number_of_threads_is_not_the_files_fault(tmp_path):
    paths = []
    for seed in (1, 2):
        paths.append(compute_statistics(images(60, seed), extractor=GridMeans()).save(tmp_path / f"{seed}.npz"))
    code = f"import fastfid; fastfid.compute_fid({str(paths[0])!r}, {str(paths[1])!r})"
    environment = {**os.environ, "FASTFID_NUM_THREADS": "abc"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr.endswith("FASTFID_NUM_THREADS: expected an integer from 1 to 4096, got 'abc'\n")
