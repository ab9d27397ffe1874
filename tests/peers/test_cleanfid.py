"""Comparison with clean-fid on the same images: its resizers, file search, statistics, trace and KID.

Only clean-fid's network of mode legacy_pytorch is available offline, and it runs here unmodified. The TorchScript
network of the modes clean and legacy_tensorflow is not available. For these modes, both packages use fastfid's
Inception network as ``custom_feat_extractor``, or in place of ``build_feature_extractor`` if a function of clean-fid
has no such argument. Everything except the network is then clean-fid's code. Tests that are not about the network use
the layer of 64 features, or means over a grid.

NOT_REPRODUCED, at the end, lists the behaviour of clean-fid that is deliberately different, with the test that shows
the improvement.
"""

import fnmatch
import glob
import importlib
import inspect
import io
import os
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import (
    ANOTHER_ORDER,
    CUT_APART,
    FEATURES,
    FEATURES_BLOWN_UP,
    GREY_LEVELS,
    KERNEL_MEANS,
    ONE_LEVEL,
    PEERS_DISTANCE,
    PEERS_FID,
    PEERS_KID,
    PEERS_NETWORK,
    PEERS_SINGULAR,
)

from fastfid.compat.cleanfid import features, fid, resize, wrappers
from fastfid.evaluation.evaluate import compute_fid
from fastfid.features.make import make_extractor
from fastfid.features.weights import IDENTITY
from fastfid.metrics.mmd import unbiased_mmd2

CPU = torch.device("cpu")
QUIET = {"device": CPU, "verbose": False}
OPTIONS = {"num_workers": 0, **QUIET}
MODES = ("clean", "legacy_pytorch", "legacy_tensorflow")


class Means(torch.nn.Module):
    """Cheap features of resized images: enough to compare everything but a network.

    In float64, as clean-fid takes the mean in the features' own precision.
    """

    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x.double(), 3).flatten(1)


class Inception64(features.InceptionFeatures):
    """Our network of a mode, up to the layer of 64 features, which in float64 are those that we use."""

    @property
    def engine(self):
        if self._engine is None:
            self._engine = make_extractor(64, resize.MODES[self.mode], "cpu")
        return self._engine

    def __call__(self, x):
        return super().__call__(x).double()


def generator(z):
    return (40 * z[:, :300].reshape(-1, 3, 10, 10) + 128).clamp(0, 255)


GENERATOR = {"gen": generator, "z_dim": 300, "num_gen": 70, "batch_size": 32}


@pytest.fixture(scope="session")
def both(cleanfid):
    return cleanfid, fid


@pytest.fixture(scope="session")
def networks(weights):
    return {mode: Inception64(mode, "cpu") for mode in MODES}


@pytest.fixture
def small_networks(networks, both, monkeypatch):
    """Our network in place of theirs and of ours, for what takes no ``custom_feat_extractor``."""
    for module in (both[0], importlib.import_module("cleanfid.wrappers"), features, wrappers):
        monkeypatch.setattr(
            module, "build_feature_extractor", lambda mode, device=None, use_dataparallel=True: networks[mode]
        )


def copies(folder, sources, n):
    folder.mkdir()
    for path in sorted(sources.iterdir())[:n]:
        (folder / path.name).hardlink_to(path)
    return str(folder)


@pytest.fixture(scope="session")
def small(many, tmp_path_factory):
    """Two folders of 70 and 66 small crops: more than 64 dimensions."""
    root = tmp_path_factory.mktemp("small")
    return copies(root / "real", many[0], 70), copies(root / "fake", many[1], 66)


@pytest.fixture(scope="session")
def tiny(many, tmp_path_factory):
    """Two folders of 9 and 8 small crops: fewer than the dimensions of any layer."""
    root = tmp_path_factory.mktemp("tiny")
    return copies(root / "real", many[0], 9), copies(root / "fake", many[1], 8)


@pytest.fixture(scope="session")
def least(many, tmp_path_factory):
    """Two folders of 4 and 3 small crops, for the whole network."""
    root = tmp_path_factory.mktemp("least")
    return copies(root / "real", many[0], 4), copies(root / "fake", many[1], 3)


@pytest.fixture
def peers_folder(cleanfid, tmp_path, monkeypatch):
    """clean-fid keeps statistics inside its own package; here, in a package folder of the test's own."""
    monkeypatch.setattr(sys.modules["cleanfid"], "__file__", str(tmp_path / "cleanfid" / "__init__.py"))
    return tmp_path / "cleanfid" / "stats"


@pytest.fixture
def our_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CLEANFID_STATS", str(tmp_path / "ours"))
    return tmp_path / "ours"


def of_both(both, call, seed=None):
    """Call either with the same state of PyTorch's and NumPy's generators."""
    values = []
    for module in both:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - clean-fid's KID draws from it
        values.append(call(module))
    return values


def assert_same(found, expected, rel=PEERS_FID):
    assert isinstance(found, float)
    assert type(found) is type(expected)
    assert found == pytest.approx(expected, rel=rel)


def test_signatures_are_the_same(both):
    modules = {
        fid: "cleanfid.fid",
        features: "cleanfid.features",
        resize: "cleanfid.resize",
    }
    names = {
        fid: [name for name in fid.__all__ if name != "EXTENSIONS"],
        features: ["build_feature_extractor", "get_reference_statistics"],
        resize: ["build_resizer", "make_resizer"],
    }
    # What differs: the default device exists, the number of threads is chosen, and what we add is keyword-only.
    improved = {"device", "num_workers"}
    for module, theirs in modules.items():
        for name in names[module]:
            expected = inspect.signature(getattr(importlib.import_module(theirs), name)).parameters
            found = inspect.signature(getattr(module, name)).parameters.values()
            added = [p for p in found if p.name not in expected]
            assert all(p.kind is p.KEYWORD_ONLY for p in added) or name == "kernel_distance", name
            common = [p for p in found if p.name in expected]
            assert [p.name for p in common] == list(expected), name
            for ours, peers in zip(common, expected.values(), strict=True):
                assert ours.default == peers.default or ours.name in improved or peers.default is peers.empty, name
    expected = inspect.signature(importlib.import_module("cleanfid.wrappers").CleanFID).parameters
    assert list(inspect.signature(wrappers.CleanFID).parameters) == list(expected)
    assert fid.EXTENSIONS == importlib.import_module("cleanfid.utils").EXTENSIONS


# Resizers.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_resize_of_every_mode(cleanfid, mode, dtype):
    image = np.random.default_rng(0).integers(0, 256, (200, 333, 3)).astype(dtype)
    expected = importlib.import_module("cleanfid.resize").build_resizer(mode)(image)
    found = resize.build_resizer(mode)(image)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=GREY_LEVELS)


PIL_FILTERS = [("PIL", name) for name in ("bicubic", "bilinear", "nearest", "lanczos", "box")]
TORCH_FILTERS = [("PyTorch", name) for name in ("bicubic", "bilinear")]  # clean-fid's other filters of torch fail


@pytest.mark.parametrize(("library", "filter"), [*PIL_FILTERS, *TORCH_FILTERS])
@pytest.mark.parametrize("quantize", [False, True])
def test_resizers_of_libraries(cleanfid, library, filter, quantize):
    image = np.random.default_rng(0).integers(0, 256, (57, 91, 3), dtype=np.uint8)
    peer = importlib.import_module("cleanfid.resize")
    expected, found = (m.make_resizer(library, quantize, filter, (33, 40))(image) for m in (peer, resize))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if quantize:  # cut off: 7.9999 and 8.0001 are a level apart
        levels = np.abs(found.astype(int) - expected)
        assert levels.max() <= (library == "PyTorch")
        assert levels.mean() < CUT_APART
    else:
        np.testing.assert_allclose(found, expected, rtol=0, atol=GREY_LEVELS)


def test_other_libraries_are_refused_alike(cleanfid):
    for module in (importlib.import_module("cleanfid.resize"), resize):
        with pytest.raises(NotImplementedError, match=r"^library \[scikit\] is not include"):
            module.make_resizer("scikit", False, "bicubic", (9, 9))


# FID of folders.


@pytest.mark.parametrize("mode", MODES)
def test_fid_of_more_images_than_dimensions_is_within_1e_6(both, small, networks, mode):
    expected, found = of_both(
        both, lambda m: m.compute_fid(*small, mode=mode, custom_feat_extractor=networks[mode], **OPTIONS)
    )
    assert_same(found, expected)
    # The same by the engine's own protocol of that name, whose features are float32.
    own = compute_fid(*small, dims=64, protocol=resize.MODES[mode], device="cpu")
    assert own == pytest.approx(expected, rel=PEERS_FID)


@pytest.mark.parametrize("mode", MODES)
def test_fid_of_fewer_images_than_dimensions_is_within_1e_5(both, tiny, networks, mode):
    expected, found = of_both(
        both, lambda m: m.compute_fid(*tiny, mode=mode, batch_size=4, custom_feat_extractor=networks[mode], **OPTIONS)
    )
    assert found == pytest.approx(expected, abs=PEERS_SINGULAR)
    assert type(found) is type(expected)


def test_mode_legacy_pytorch_with_its_own_network(both, least):
    model = both[0].build_feature_extractor("legacy_pytorch", CPU, use_dataparallel=False)
    expected = both[0].get_folder_features(least[0], model, mode="legacy_pytorch", **OPTIONS)
    found = both[1].get_folder_features(least[0], mode="legacy_pytorch", **OPTIONS)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype) == ((4, 2048), np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=FEATURES_BLOWN_UP)


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_our_whole_network_on_either_side(both, least, mode):
    network = features.build_feature_extractor(mode, "cpu")
    options = {"mode": mode, **OPTIONS}
    expected, found = of_both(both, lambda m: [m.get_folder_features(folder, network, **options) for folder in least])
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=FEATURES)
    # SciPy's square root takes a minute at 2048 dimensions; every fourth feature will do.
    distance = both[0].fid_from_feats(*(rows[:, ::4] for rows in expected))
    assert both[1].fid_from_feats(*(rows[:, ::4] for rows in found)) == pytest.approx(distance, abs=PEERS_SINGULAR)
    # The default call, of the same features.
    own = fid.compute_fid(*least, **options)
    assert own == pytest.approx(fid.fid_from_feats(*found), rel=ANOTHER_ORDER)
    assert compute_fid(*least, protocol=resize.MODES[mode], device="cpu") == pytest.approx(own, rel=PEERS_FID)


@pytest.fixture
def odd(many, tmp_path):
    """Sub-folders, extensions in capitals, an array, images of mixed sizes, and files that are passed over."""
    root = tmp_path / "odd"
    (root / "sub" / "deep").mkdir(parents=True)
    for i, path in enumerate(sorted(many[0].iterdir())[:6]):
        name = ["a{}.JPG", "sub/b{}.PNG", "sub/deep/c{}.bmp"][i % 3].format(i)
        Image.open(path).resize((40 + i, 50)).save(root / name)
    np.save(root / "d.npy", np.random.default_rng(0).uniform(0, 255, (30, 31, 3)).astype(np.float32))
    (root / "readme.txt").write_text("no image")
    Image.new("RGB", (9, 9)).save(root / "passed-over.WEBP")
    return str(root)


def crop(image):
    return image[2:30, 1:29]


def coarse(image):
    return image[::4, ::4].astype(np.float32)


def coarse_levels(image):
    return image[::4, ::4].astype(np.uint8)  # uint8 goes through ToTensor and back


@pytest.mark.parametrize(("transform", "resizer"), [(None, None), (crop, None), (crop, coarse), (crop, coarse_levels)])
def test_callbacks_and_odd_folders(both, odd, small, transform, resizer):
    options = {"custom_image_tranform": transform, "custom_fn_resize": resizer, **OPTIONS}
    expected, found = of_both(both, lambda m: m.get_folder_features(odd, Means(), mode="clean", **options))
    assert expected.shape == (7, 27)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=GREY_LEVELS)
    expected, found = of_both(both, lambda m: m.compute_fid(*small, custom_feat_extractor=Means(), **options))
    assert_same(found, expected)


@pytest.mark.parametrize("options", [{"num": 9}, {"num": 9, "shuffle": True, "seed": 3}])
def test_subsets_are_the_same(both, many, options):
    expected, found = of_both(both, lambda m: m.get_folder_features(str(many[0]), Means(), **options, **OPTIONS))
    np.testing.assert_allclose(found, expected, rtol=0, atol=GREY_LEVELS)


def zipped(path, folder, n=None):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(Path(folder).iterdir())[:n]:
            archive.write(file, f"images/{file.name}")
        archive.writestr("readme.txt", "no image")
    return str(path)


def test_zip_files(both, small, tmp_path):
    sides = zipped(tmp_path / "real.zip", small[0]), zipped(tmp_path / "fake.zip", small[1])
    for paths in (sides, (sides[0], small[1])):
        expected, found = of_both(
            both, lambda m, paths=paths: m.compute_fid(*paths, custom_feat_extractor=Means(), **OPTIONS)
        )
        assert_same(found, expected)
    assert found == pytest.approx(fid.compute_fid(*small, custom_feat_extractor=Means(), **OPTIONS), rel=ANOTHER_ORDER)


# Generators.


def test_features_of_generated_images(both):
    def call(module):
        return module.get_model_features(
            generator, Means(), z_dim=300, num_gen=50, batch_size=16, return_z=True, **QUIET
        )

    (expected, z), (found, our_z) = of_both(both, call, seed=5)
    assert expected.shape == (50, 27)
    assert torch.equal(our_z, z)
    assert our_z.shape == (64, 300)
    np.testing.assert_allclose(found, expected, rtol=0, atol=GREY_LEVELS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("callbacks", [{}, {"custom_image_tranform": crop, "custom_fn_resize": coarse}])
def test_generators_see_the_same_random_numbers(both, small, mode, callbacks):
    options = {"fdir2": small[1], "mode": mode, "custom_feat_extractor": Means(), **callbacks}
    if mode == "legacy_tensorflow" and callbacks:
        options["fdir2"] = small[0]  # generated images are handed on as they are, files are not
    expected, found = of_both(both, lambda m: m.compute_fid(**options, **GENERATOR, **OPTIONS), seed=5)
    assert_same(found, expected)


# KID.


@pytest.mark.parametrize(("subsets", "size"), [(100, 1000), (7, 50)])
def test_kid_of_the_same_subsets(both, subsets, size):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((120, 40)), rng.standard_normal((90, 40)) + 0.2
    np.random.seed(11)  # noqa: NPY002
    expected = both[0].kernel_distance(x, y, subsets, size)
    assert_same(both[1].kernel_distance(x, y, subsets, size, seed=11), expected, rel=KERNEL_MEANS)


def test_the_kid_of_all_images_is_kernel_distance_over_one_subset_of_all(both):
    rng = np.random.default_rng(4)
    x, y = (rng.standard_normal((300, 64)).astype(np.float32) + shift for shift in (0, np.float32(0.2)))
    assert_same(unbiased_mmd2(x, y)[0], both[0].kernel_distance(x, y, 1, 300), rel=PEERS_KID)


@pytest.mark.parametrize("mode", MODES)
def test_kid_of_folders_and_generators(both, tiny, small_networks, mode):
    expected, found = of_both(both, lambda m: m.compute_kid(*tiny, mode=mode, **OPTIONS), seed=0)
    assert_same(found, expected, rel=PEERS_KID)
    options = {"fdir2": tiny[1], "mode": mode, "gen": generator, "z_dim": 300, "num_gen": 8, "batch_size": 8, **OPTIONS}
    expected, found = of_both(both, lambda m: m.compute_kid(**options), seed=0)
    assert_same(found, expected, rel=PEERS_KID)


# Statistics by name.


def make(both, name, folder, **options):
    of_both(both, lambda m: m.make_custom_stats(name, folder, **options, **OPTIONS))


@pytest.mark.parametrize("mode", MODES)
def test_custom_statistics_have_the_same_names_and_numbers(both, tiny, peers_folder, our_folder, small_networks, mode):
    make(both, "Some Photos", tiny[0], mode=mode)
    names = sorted(path.name for path in peers_folder.iterdir())
    assert names == [f"some photos_{mode}_custom_na{kid}.npz" for kid in ("", "_kid")]
    assert sorted(path.name for path in our_folder.iterdir()) == names
    for name in names:
        with np.load(peers_folder / name) as expected, np.load(our_folder / name) as found:
            for key in expected.files:
                assert found[key].shape == expected[key].shape
                np.testing.assert_allclose(found[key], expected[key], rtol=0, atol=PEERS_NETWORK)


def test_against_custom_statistics(both, small, peers_folder, our_folder, small_networks):
    make(both, "abc", small[0])
    options = {"dataset_name": "abc", "dataset_split": "custom", **OPTIONS}
    expected, found = of_both(both, lambda m: m.compute_fid(small[1], **options))
    assert_same(found, expected)
    # Either reads the other's file.
    assert fid.compute_fid(small[1], stats_folder=peers_folder, **options) == pytest.approx(expected, rel=PEERS_FID)
    (peers_folder / "abc_clean_custom_na.npz").write_bytes((our_folder / "abc_clean_custom_na.npz").read_bytes())
    assert both[0].compute_fid(small[1], **options) == pytest.approx(expected, rel=PEERS_FID)
    expected, found = of_both(both, lambda m: m.compute_fid(**GENERATOR, **options), seed=0)
    assert_same(found, expected)
    few = {**GENERATOR, "num_gen": 8, "batch_size": 8}
    expected, found = of_both(both, lambda m: m.compute_kid(**few, **options), seed=0)
    assert_same(found, expected, rel=PEERS_KID)


def test_custom_statistics_come_and_go(both, tiny, peers_folder, our_folder, small_networks):
    def known(module):
        return [module.test_stats_exists("abc", "clean", metric=metric) for metric in ("FID", "KID")]

    assert of_both(both, known) == [[False, False]] * 2
    make(both, "abc", tiny[0], num=5)
    assert of_both(both, known) == [[True, True]] * 2
    expected, found = (
        np.load(folder / "abc_clean_custom_na_kid.npz")["feats"] for folder in (peers_folder, our_folder)
    )
    assert len(expected) == 5
    np.testing.assert_allclose(found, expected, rtol=0, atol=PEERS_NETWORK)
    of_both(both, lambda m: m.remove_custom_stats("abc"))
    assert of_both(both, known) == [[False, False]] * 2
    assert not [*peers_folder.iterdir(), *our_folder.iterdir()]


def test_reference_statistics_by_name(cleanfid, peers_folder, our_folder):
    peer = importlib.import_module("cleanfid.features")
    for folder in (peers_folder, our_folder):
        folder.mkdir(parents=True)
        np.savez(folder / "ffhq_clean_trainval_256.npz", mu=np.ones(3, np.float32), sigma=np.eye(3))
        np.savez(folder / "ffhq_clean_trainval_256_kid.npz", feats=np.ones((4, 3), np.float32))
    arguments = ("FFHQ", 256, "clean", "inception_v3", 0, "trainval")
    for metric in ("FID", "KID"):
        expected, found = (module.get_reference_statistics(*arguments, metric) for module in (peer, features))
        for ours, peers in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, peers)


# Images one by one.


def test_the_wrapper(both, tiny, small_networks):
    peer = importlib.import_module("cleanfid.wrappers").CleanFID("clean", device="cpu")
    ours = wrappers.CleanFID("clean", device="cpu")
    images = [Image.open(path).convert("RGB") for folder in tiny for path in sorted(Path(folder).iterdir())]
    tensors = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    for metric in (peer, ours):
        metric.add_gen_images(images[0])
        metric.reset_gen_features()
        for image in images[:9]:
            metric.add_real_images(image)
        metric.add_gen_images(np.asarray(images[9]))
        metric.add_gen_images(tensors[10])
        metric.add_gen_images(tensors[11:])
    expected, found = (metric.calculate_fid(verbose=False) for metric in (peer, ours))
    assert type(found) is type(expected)
    assert found == pytest.approx(expected, abs=PEERS_SINGULAR)


# Distances, exceptions, printed lines.


@pytest.mark.parametrize(("n", "d", "seed"), [(64, 64, 2023), (32, 256, 2023), (1024, 64, 2023)])
def test_fid_of_features(both, n, d, seed):
    rng = np.random.RandomState(seed)
    x, y = rng.randn(n, d), rng.randn(n, d)
    expected, found = of_both(both, lambda m: m.fid_from_feats(x, y))
    assert type(found) is type(expected)
    tolerance = {"rel": PEERS_DISTANCE} if n > d else {"abs": PEERS_SINGULAR}
    assert found == pytest.approx(expected, **tolerance)


EXCEPTIONS = {
    "no sides of FID": lambda m, _: m.compute_fid(mode="legacy_pytorch", custom_feat_extractor=Means(), **OPTIONS),
    "one side of FID": lambda m, tiny: m.compute_fid(fdir2=tiny[0], custom_feat_extractor=Means(), **OPTIONS),
    "no sides of KID": lambda m, _: m.compute_kid(**OPTIONS),
    "statistics exist": lambda m, tiny: m.make_custom_stats("abc", tiny[0], **OPTIONS),
    "no such statistics": lambda m, _: m.remove_custom_stats("Never Made"),
    "means of other lengths": lambda m, _: m.frechet_distance([0, 0], np.eye(2), [0], np.eye(2)),
    "covariances of other sizes": lambda m, _: m.frechet_distance([0, 0], np.eye(2), [0, 0], np.eye(3)),
}


@pytest.mark.parametrize("case", EXCEPTIONS)
def test_exceptions_and_texts_are_the_same(both, tiny, peers_folder, our_folder, small_networks, case):
    if case == "statistics exist":
        make(both, "abc", tiny[0], num=2)
    errors = []
    for module in both:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is what is asked
            EXCEPTIONS[case](module, tiny)
        errors.append(raised.value)
    assert str(errors[1]) == str(errors[0])
    # clean-fid raises bare Exceptions for files; ours say more.
    assert isinstance(errors[1], type(errors[0]))


def test_what_is_printed_is_the_same(both, tiny, peers_folder, our_folder, small_networks, capsys):
    make(both, "abc", tiny[0])
    capsys.readouterr()
    reference = {"dataset_name": "abc", "dataset_split": "custom"}
    sides = (
        {"fdir1": tiny[0], "fdir2": tiny[1]},
        {"fdir1": tiny[0], **reference},
        {**GENERATOR, "fdir2": tiny[1], "num_gen": 4, "batch_size": 4},
        {**GENERATOR, **reference, "num_gen": 4, "batch_size": 4},
    )
    for function in ("compute_fid", "compute_kid"):
        for side in sides:
            printed = []
            for module in both:
                getattr(module, function)(**side, device=CPU, num_workers=0)
                captured = capsys.readouterr()
                # Bars are on stderr; of theirs too only the description counts.
                printed.append(
                    (captured.out, {line.partition(":")[0].strip() for line in captured.err.split("\r") if line})
                )
            assert printed[1] == printed[0]
            assert printed[1][0].startswith(f"compute {function[-3:].upper()} ")


# What is not reproduced.


def test_better_an_imaginary_component_is_an_error(both):
    # clean-fid's master has the check commented out; the release of these tests still has it. Ours always has.
    for module in both:
        with pytest.raises(ValueError, match="Imaginary component"):
            module.frechet_distance([0, 0], [[-1, 1], [1, 1]], [0, 0], np.eye(2))


def test_better_statistics_are_in_the_users_cache(both, tiny, peers_folder, small_networks, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    make(both, "abc", tiny[0], num=2)
    package = Path(sys.modules["cleanfid"].__file__).parent
    assert (package / "stats" / "abc_clean_custom_na.npz").exists()
    ours = features.stats_path("abc", "clean", "custom", "na")
    assert ours.exists()
    assert ours.parent == tmp_path / "cache" / "cleanfid-stats"


def test_better_half_a_download_is_no_file(both, peers_folder, our_folder, monkeypatch):
    class Broken(io.BytesIO):
        def read(self, n=-1):
            if self.tell():
                raise ConnectionResetError("connection lost")
            return super().read(4)

    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout=None: Broken(b"half of it"))
    peer = importlib.import_module("cleanfid.features")
    for module, error in ((peer, ConnectionResetError), (features, FileNotFoundError)):
        with pytest.raises(error):
            module.get_reference_statistics("x", 1)
    assert [path.stat().st_size for path in peers_folder.iterdir()] == [4]  # the next call reads this
    assert not list(our_folder.iterdir())


def test_better_weights_are_checked_and_not_in_the_temporary_folder(both, weights, monkeypatch):
    asked = []
    inception = importlib.import_module("cleanfid.inception_torchscript")
    monkeypatch.setattr(inception, "check_download_inception", lambda fpath: asked.append(fpath))
    monkeypatch.setattr(inception.torch.jit, "load", lambda path: asked.append(path) or (_ for _ in ()).throw(EOFError))
    with pytest.raises(EOFError):
        both[0].build_feature_extractor("clean", CPU)
    assert asked == [tempfile.gettempdir(), os.path.join(tempfile.gettempdir(), "inception-2015-12-05.pt")]
    # Ours are the numbers of Google's network, whatever file brings them, and no TorchScript is run.
    engine = features.build_feature_extractor("clean", "cpu").engine
    assert engine.identity == IDENTITY
    assert Path(tempfile.gettempdir()) != weights.path.parent


def test_better_names_with_capitals(both, tiny, peers_folder, our_folder, small_networks):
    make(both, "Some Photos", tiny[0], num=2)
    assert of_both(both, lambda m: m.test_stats_exists("Some Photos", "clean")) == [False, True]
    # Removing: clean-fid deletes one file, then fails on the other.
    with pytest.raises(Exception, match="does not exist"):
        both[0].remove_custom_stats("Some Photos")
    assert [path.name for path in peers_folder.iterdir()] == ["some photos_clean_custom_na_kid.npz"]
    both[1].remove_custom_stats("Some Photos")
    assert not list(our_folder.iterdir())


def test_better_zip_files_are_read_in_order(both, many, tmp_path):
    path = zipped(tmp_path / "images.zip", many[0], 40)
    in_order = fid.get_folder_features(copies(tmp_path / "folder", many[0], 40), Means(), **OPTIONS)
    expected, found = of_both(both, lambda m: m.get_folder_features(path, Means(), **OPTIONS))
    np.testing.assert_array_equal(found, in_order)
    np.testing.assert_array_equal(fid.get_folder_features(path, Means(), num=3, **OPTIONS), in_order[:3])
    # Theirs are the same images in the order of a set of strings, another one in every process.
    assert not np.allclose(expected, in_order, rtol=0, atol=ONE_LEVEL)
    np.testing.assert_allclose(np.sort(expected, axis=0), np.sort(in_order, axis=0), rtol=0, atol=GREY_LEVELS)


def test_better_a_folder_with_zip_in_its_name(both, tmp_path):
    folder = tmp_path / "a.zipped"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "x.png")
    with pytest.raises((IsADirectoryError, zipfile.BadZipFile)):
        both[0].get_folder_features(str(folder), Means(), **OPTIONS)
    assert both[1].get_folder_features(str(folder), Means(), **OPTIONS).shape == (1, 27)


def test_better_an_unknown_mode_is_said(both):
    with pytest.raises(UnboundLocalError):
        both[0].compute_fid("a", "b", mode="dirty", **OPTIONS)
    with pytest.raises(ValueError, match="Invalid mode dirty specified"):
        both[1].compute_fid("a", "b", mode="dirty", **OPTIONS)


def test_better_float64_arrays(both, tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.full((20, 20, 3), 10.0 * i))
    options = {"mode": "legacy_tensorflow", **OPTIONS}
    with pytest.raises(UnboundLocalError):
        both[0].get_folder_features(str(tmp_path), Means(), **options)
    rows = both[1].get_folder_features(str(tmp_path), Means(), **options)
    np.testing.assert_array_equal(rows[:, 0], [0, 10, 20])


def test_better_the_default_device_exists(both, tiny):
    assert inspect.signature(both[0].compute_fid).parameters["device"].default == torch.device("cuda")
    found = both[1].compute_fid(*tiny, custom_feat_extractor=Means(), verbose=False)
    assert found == both[1].compute_fid(*tiny, custom_feat_extractor=Means(), **OPTIONS)


def test_better_threads_as_many_as_there_are_processors(both):
    assert inspect.signature(both[0].compute_fid).parameters["num_workers"].default == 12
    assert inspect.signature(both[1].compute_fid).parameters["num_workers"].default is None  # min(8, CPUs)


def test_better_clip_is_the_callers_own(both, tiny, peers_folder, monkeypatch):
    devices = []

    def clip(name, device="cuda"):
        devices.append(device)
        raise RuntimeError("no CUDA")

    fake = types.ModuleType("cleanfid.clip_features")
    fake.CLIP_fx, fake.img_preprocess_clip = clip, None
    monkeypatch.setitem(sys.modules, "cleanfid.clip_features", fake)
    for module, error in zip(both, (RuntimeError, ValueError), strict=True):
        with pytest.raises(error, match=r"CUDA|pass custom_feat_extractor"):
            module.make_custom_stats("abc", tiny[0], model_name="clip_vit_b_32", device=CPU)
    assert devices == ["cuda"]  # whatever device was asked for


def test_better_kid_is_repeatable(both):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 8)), rng.standard_normal((60, 8))
    assert both[0].kernel_distance(x, y, 5, 20) != both[0].kernel_distance(x, y, 5, 20)
    assert both[1].kernel_distance(x, y, 5, 20) == both[1].kernel_distance(x, y, 5, 20)


def test_better_no_file_counts_twice_where_names_ignore_case(both, tiny, monkeypatch):
    original = glob.glob

    def ignoring_case(pattern, recursive=False):
        folder, _, name = pattern.partition("**")
        files = original(folder + "**/*", recursive=recursive)
        return [file for file in files if fnmatch.fnmatch(os.path.basename(file).lower(), name[1:].lower())]

    monkeypatch.setattr(both[0], "glob", ignoring_case)
    monkeypatch.setattr(glob, "glob", ignoring_case)
    expected, found = of_both(both, lambda m: len(m.get_folder_features(tiny[0], Means(), **OPTIONS)))
    assert (expected, found) == (18, 9)


def test_better_another_networks_features_are_not_compared_with_inceptions(both, tiny, peers_folder, our_folder):
    for folder in (peers_folder, our_folder):
        folder.mkdir(parents=True)
        np.savez(folder / "ffhq_clean_train_1024.npz", mu=np.zeros(27), sigma=np.eye(27))
    assert both[0].compute_fid(tiny[0], custom_feat_extractor=Means(), **OPTIONS) > 0
    with pytest.raises(ValueError, match="statistics of a dataset are of the Inception network"):
        both[1].compute_fid(tiny[0], custom_feat_extractor=Means(), **OPTIONS)


NOT_REPRODUCED = {
    "the imaginary part is dropped silently": test_better_an_imaginary_component_is_an_error,
    "statistics in site-packages": test_better_statistics_are_in_the_users_cache,
    "downloads that are not atomic": test_better_half_a_download_is_no_file,
    "weights in the temporary folder, unchecked": test_better_weights_are_checked_and_not_in_the_temporary_folder,
    "NVIDIA's TorchScript": test_better_weights_are_checked_and_not_in_the_temporary_folder,
    "test_stats_exists does not lower-case names": test_better_names_with_capitals,
    "remove_custom_stats fails half-way on capitals": test_better_names_with_capitals,
    "zip files are listed in the order of a set": test_better_zip_files_are_read_in_order,
    '".zip" anywhere in a path': test_better_a_folder_with_zip_in_its_name,
    "UnboundLocalError for a bad mode": test_better_an_unknown_mode_is_said,
    "UnboundLocalError for float64 arrays": test_better_float64_arrays,
    "device cuda by default": test_better_the_default_device_exists,
    "make_custom_stats of CLIP always on cuda": test_better_clip_is_the_callers_own,
    "unseeded KID": test_better_kid_is_repeatable,
    "files count twice where names ignore case": test_better_no_file_counts_twice_where_names_ignore_case,
    "12 workers by default": test_better_threads_as_many_as_there_are_processors,
    "features of another network against Inception's statistics": (
        test_better_another_networks_features_are_not_compared_with_inceptions
    ),
}


def test_the_table_of_what_is_not_reproduced_is_whole():
    named = {name for name in globals() if name.startswith("test_better_")}
    assert named == {test.__name__ for test in NOT_REPRODUCED.values()}
