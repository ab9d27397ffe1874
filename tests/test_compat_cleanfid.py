"""fastfid.compat.cleanfid without clean-fid. tests/peers/test_cleanfid.py compares it with clean-fid."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import (
    ANOTHER_ORDER,
    EQUAL_GAUSSIANS,
    EQUAL_SETS,
    FEATURES,
    FLOAT32_MEANS,
    GREY_LEVELS,
    KERNEL_MEANS,
    MOMENTS,
)

from fastfid.compat.cleanfid import features, fid, resize, wrappers
from fastfid.errors import ImageError, NumericalError, SuspiciousInputWarning
from fastfid.metrics.fid import frechet_distance
from fastfid.statistics import Statistics

MODES = ("clean", "legacy_pytorch", "legacy_tensorflow")


class Means:
    """A feature extractor with known features: means over the quarters of an image with values in [0, 255]."""

    def __init__(self):
        self.shapes = []

    def __call__(self, x):
        assert x.dtype == torch.float32
        self.shapes.append(tuple(x.shape))
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def random_image(rng, size=(24, 20)):
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures in sub-folders, of mixed sizes and extensions, one array, and files that are no images."""
    root = tmp_path / "real"
    (root / "sub" / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, name in enumerate(["b.png", "a.JPG", "sub/c.PNG", "sub/deeper/d.webp", "e.tif", "f.bmp"]):
        Image.fromarray(random_image(rng, (24 + i, 20))).save(root / name)
    np.save(root / "sub" / "g.npy", rng.uniform(0, 255, (15, 16, 3)))  # float64
    (root / "readme.txt").write_text("no image")
    Image.fromarray(random_image(rng)).save(root / "passed-over.WEBP", format="webp")
    return root


@pytest.fixture
def fake(tmp_path):
    root = tmp_path / "fake"
    root.mkdir()
    rng = np.random.default_rng(1)
    for i in range(9):
        Image.fromarray(random_image(rng) // 2).save(root / f"{i}.png")
    return root


def files_of(root):
    """The images of a folder in clean-fid's order."""
    return [path for path in sorted(root.rglob("*.*")) if path.suffix not in (".txt", ".WEBP")]


def load(path):
    return np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path).convert("RGB"))


def expected_features(files, mode="clean", transform=None, resizer=None):
    resizer = resizer or resize.build_resizer(mode)
    rows = []
    for path in files:
        image = load(path)
        image = resizer(transform(image) if transform else image)
        rows.append(Means()(torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))[None])[0].numpy())
    return np.stack(rows)


def gaussian(rows):
    """The statistics with the rows themselves: exact for few images too."""
    return Statistics(rows.mean(axis=0), np.cov(rows, rowvar=False), len(rows), rows=rows if len(rows) <= 12 else None)


def test_a_folder_is_searched_with_its_sub_folders(folder):
    # Not the text, nor .WEBP, which clean-fid does not know.
    rows = fid.get_folder_features(folder, Means(), mode="clean", device="cpu", verbose=False)
    files = [folder / n for n in ("a.JPG", "b.png", "e.tif", "f.bmp", "sub/c.PNG", "sub/deeper/d.webp", "sub/g.npy")]
    assert files == files_of(folder)
    np.testing.assert_allclose(rows, expected_features(files), rtol=FLOAT32_MEANS)


@pytest.mark.parametrize("mode", MODES)
def test_folders_of_mixed_sizes_in_every_mode(folder, fake, mode, capsys):
    extractor = Means()
    value = fid.compute_fid(folder, fake, mode=mode, custom_feat_extractor=extractor, device="cpu", batch_size=3)
    assert type(value) is np.float64
    sides = [expected_features(files_of(root), mode) for root in (folder, fake)]
    assert value == pytest.approx(frechet_distance(*map(gaussian, sides)), rel=FLOAT32_MEANS)
    sizes = {load(path).shape[:2] for path in files_of(folder) + files_of(fake)}
    assert {shape[2:] for shape in extractor.shapes} == (sizes if mode == "legacy_tensorflow" else {(299, 299)})
    assert capsys.readouterr().out.splitlines() == [
        "compute FID between two folders",
        f"Found 7 images in the folder {folder}",
        f"Found 9 images in the folder {fake}",
    ]


def test_a_zip_file_gives_what_its_folder_gives(fake, tmp_path):
    with zipfile.ZipFile(tmp_path / "fake.zip", "w") as archive:
        archive.writestr("readme.txt", "no image")
        for path in sorted(fake.iterdir(), reverse=True):
            archive.write(path, f"images/{path.name}")
    rows = [
        fid.get_folder_features(source, Means(), device="cpu", verbose=False)
        for source in (fake, tmp_path / "fake.zip", str(tmp_path / "fake.zip"))
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_a_folder_whose_name_has_zip_or_brackets_in_it(fake, tmp_path):
    odd = fake.rename(tmp_path / "not.zipped [1]")
    assert len(fid.get_folder_features(odd, Means(), device="cpu", verbose=False)) == 9


def test_num_takes_the_first_or_a_seeded_subset(fake):
    def features(**options):
        return fid.get_folder_features(fake, Means(), device="cpu", verbose=False, **options)

    whole = features()
    np.testing.assert_array_equal(features(num=4), whole[:4])
    import random

    order = list(range(9))
    random.Random(5).shuffle(order)  # clean-fid: random.seed(seed); random.shuffle(files)
    np.testing.assert_array_equal(features(num=4, shuffle=True, seed=5), whole[order[:4]])


def test_callbacks_are_called_in_order_with_what_clean_fid_gives_them(fake):
    seen = []

    def crop(image):
        assert image.dtype == np.uint8
        seen.append(image.shape)
        return image[:10, :8]

    def halve(image):
        return image[::2, ::2]

    rows = fid.get_files_features(
        [str(path) for path in sorted(fake.iterdir())],
        Means(),
        custom_image_tranform=crop,
        custom_fn_resize=halve,
        device="cpu",
        verbose=False,
    )
    assert seen == [(24, 20, 3)] * 9
    np.testing.assert_allclose(
        rows, expected_features(sorted(fake.iterdir()), "clean", crop, halve), rtol=FLOAT32_MEANS
    )


def test_nothing_is_printed_if_not_verbose(folder, fake, capsys):
    fid.compute_fid(str(folder), str(fake), custom_feat_extractor=Means(), device="cpu", verbose=False)
    assert capsys.readouterr() == ("", "")


def generator(z):
    return (40 * z[:, :48].reshape(-1, 3, 4, 4) + 128).clamp(0, 255)


def draw_of_a_data_loader():
    """clean-fid reads fdir2 by a DataLoader, which takes one number from the global generator before any z is drawn."""
    torch.utils.data.DataLoader([0]).__iter__()


def test_a_generator_is_fed_standard_normals(fake, capsys):
    torch.manual_seed(3)
    value = fid.compute_fid(
        gen=generator, fdir2=fake, custom_feat_extractor=Means(), num_gen=20, batch_size=8, z_dim=48, device="cpu"
    )
    torch.manual_seed(3)
    draw_of_a_data_loader()
    resizer = resize.build_resizer("clean")
    images = torch.cat([generator(torch.randn(8, 48)) for _ in range(3)])[:20].permute(0, 2, 3, 1).numpy()
    rows = Means()(torch.from_numpy(np.stack([resizer(image) for image in images])).permute(0, 3, 1, 2)).numpy()
    expected = frechet_distance(gaussian(rows), gaussian(expected_features(sorted(fake.iterdir()))))
    assert value == pytest.approx(expected, rel=FLOAT32_MEANS)
    assert capsys.readouterr().out.splitlines()[0] == "compute FID of a model, using references in fdir2"


def test_generated_images_may_be_more_and_come_with_their_z():
    rows, z = fid.get_model_features(
        lambda z: generator(torch.cat([z, z])), Means(), z_dim=48, num_gen=5, batch_size=4, return_z=True, verbose=False
    )
    assert rows.shape == (5, 12)
    assert z.shape == (8, 48)


@pytest.mark.parametrize("wrong", [lambda z: torch.zeros(3, 3, 4, 4), lambda z: torch.zeros(4, 1, 4, 4), lambda z: z])
def test_a_generator_of_other_shapes_is_refused(wrong):
    with pytest.raises(ValueError, match=r"gen: expected images of shape \(4, 3, h, w\)"):
        fid.get_model_features(wrong, Means(), z_dim=4, num_gen=4, batch_size=4, verbose=False)


def test_generated_images_for_the_tensorflow_network_are_not_resized():
    model = Means()
    rows = fid.get_model_features(generator, model, "legacy_tensorflow", 48, 5, 4, verbose=False)
    assert rows.shape == (5, 12)
    assert model.shapes == [tuple(generator(torch.zeros(4, 48)).shape)] * 2
    torch.manual_seed(5)
    rows = fid.get_model_features(generator, model, "legacy_tensorflow", 48, 4, 4, verbose=False)
    torch.manual_seed(5)
    np.testing.assert_array_equal(rows, Means()(generator(torch.randn(4, 48)).float()))


@pytest.mark.parametrize("numbers", [{"num_gen": 0, "batch_size": 4}, {"num_gen": 4, "batch_size": 0}])
def test_a_generator_of_no_images_is_refused(numbers):
    with pytest.raises(ValueError, match=r"num_gen, batch_size: expected at least 1, got \d and \d"):
        fid.get_model_features(generator, Means(), verbose=False, **numbers)


def test_fid_of_features_is_exact_for_few_rows():
    x = np.random.default_rng(0).standard_normal((6, 40))
    assert fid.fid_from_feats(x, x) == pytest.approx(0, abs=EQUAL_GAUSSIANS)
    assert fid.fid_from_feats(x, x + 2) == pytest.approx(160, rel=ANOTHER_ORDER)
    with pytest.raises(ValueError, match="at least 2"):
        fid.fid_from_feats(x[:1], x)


def test_an_imaginary_component_is_an_error():
    with pytest.raises(NumericalError, match="Imaginary component"):
        fid.frechet_distance([0, 0], [[-1, 1], [1, 1]], [0, 0], np.eye(2))


# KID.


def test_features_are_a_matrix():
    with pytest.raises(ValueError, match=r"feats2: expected shape \(n, d\), got \(3,\)"):
        fid.fid_from_feats(np.eye(3), np.ones(3))


def test_kid_is_the_unbiased_mmd():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((30, 5)) + 0.4

    def k(a, b):
        return (a @ b / 5 + 1) ** 3

    def mean(values):
        values = list(values)
        return sum(values) / len(values)

    expected = (
        mean(k(x[i], x[j]) for i in range(30) for j in range(30) if i != j)
        + mean(k(y[i], y[j]) for i in range(30) for j in range(30) if i != j)
        - 2 * mean(k(a, b) for a in x for b in y)
    )
    assert fid.kernel_distance(x, y) == pytest.approx(expected, rel=KERNEL_MEANS)  # every subset is the whole
    assert type(fid.kernel_distance(x.astype(np.float32), y)) is float


def test_kid_subsets_are_seeded():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 5)), rng.standard_normal((40, 5))
    values = [fid.kernel_distance(x, y, 4, 10, seed=seed) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    np.random.seed(7)  # noqa: NPY002 - a caller's global generator is left alone
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    fid.kernel_distance(x, y, 4, 10)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((1, 4)), np.zeros((5, 4))),
        (np.zeros((5, 4)), np.zeros((5, 3))),
        (np.zeros(5), np.zeros((5, 3))),
        (np.zeros((5, 4)), np.zeros((5, 4)), 0),
        (np.zeros((5, 4)), np.zeros((5, 4)), 10, 1),
    ],
)
def test_kid_refuses_bad_features(arguments):
    with pytest.raises(ValueError, match=r"feats|num_subsets"):
        fid.kernel_distance(*arguments)


def test_kid_of_generators_and_folders(fake, folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(features, "build_feature_extractor", lambda mode, device, use_dataparallel=True: Means())
    between = fid.compute_kid(folder, fake, device="cpu", seed=4)
    sides = [fid.get_folder_features(root, Means(), device="cpu", verbose=False) for root in (folder, fake)]
    assert between == fid.kernel_distance(*sides, seed=4)
    torch.manual_seed(0)
    generated = fid.compute_kid(gen=generator, fdir2=fake, device="cpu", num_gen=6, batch_size=6, z_dim=48)
    torch.manual_seed(0)
    draw_of_a_data_loader()
    rows = fid.get_model_features(generator, Means(), z_dim=48, num_gen=6, batch_size=6, verbose=False)
    assert generated == fid.kernel_distance(sides[1], rows)
    np.savez(tmp_path / "ref_clean_custom_na_kid.npz", feats=sides[0])
    reference = {"dataset_name": "Ref", "dataset_split": "custom", "stats_folder": tmp_path, "device": "cpu"}
    assert fid.compute_kid(fake, **reference) == fid.kernel_distance(*sides)
    torch.manual_seed(0)
    value = fid.compute_kid(gen=generator, num_gen=6, batch_size=6, z_dim=48, **reference)
    torch.manual_seed(0)
    rows = fid.get_model_features(generator, Means(), z_dim=48, num_gen=6, batch_size=6, verbose=False)
    assert value == fid.kernel_distance(sides[0], rows)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("compute")]
    assert lines == [
        "compute KID between two folders",
        "compute KID of a model, using references in fdir2",
        "compute KID of a folder with Ref statistics",
        "compute KID of a model with Ref-1024 statistics",
    ]


# Reference statistics.


@pytest.fixture
def small_network(monkeypatch):
    """Means in place of the Inception network, so that statistics are small; its provenance with it."""

    class Small(features.InceptionFeatures):
        class Engine:
            protocol, identity, precision, dims = "clean", "means", "float32", 12

        engine = Engine()

        def of_arrays(self, images):
            return Means()(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    monkeypatch.setattr(
        features, "build_feature_extractor", lambda mode, device, use_dataparallel=True: Small(mode, device)
    )


def test_custom_statistics_are_made_used_and_removed(folder, fake, tmp_path, small_network, monkeypatch, capsys):
    monkeypatch.setenv("FASTFID_CACHE", str(tmp_path / "cache"))
    assert not fid.test_stats_exists("My Set", "clean")
    fid.make_custom_stats("My Set", folder, mode="clean")
    # Upper and lower case are the same name everywhere; clean-fid forgets it in two of four places.
    for name in ("My Set", "my set"):
        assert fid.test_stats_exists(name, "clean")
        assert fid.test_stats_exists(name, "clean", metric="KID")
    assert not fid.test_stats_exists("My Set", "legacy_pytorch")
    path = tmp_path / "cache" / "cleanfid-stats" / "my set_clean_custom_na.npz"
    rows = fid.get_folder_features(folder, Means(), device="cpu", verbose=False)
    np.testing.assert_allclose(np.load(path)["mu"], rows.mean(axis=0), rtol=FLOAT32_MEANS)
    np.testing.assert_allclose(np.load(path)["sigma"], np.cov(rows, rowvar=False), rtol=MOMENTS, atol=0)
    assert f"saving custom FID stats to {path}" in capsys.readouterr().out

    value = fid.compute_fid(fake, dataset_name="My Set", dataset_split="custom")
    theirs = fid.get_folder_features(fake, Means(), device="cpu", verbose=False)
    expected = frechet_distance((rows.mean(axis=0), np.cov(rows, rowvar=False)), gaussian(theirs))
    assert value == pytest.approx(expected, rel=FLOAT32_MEANS)
    torch.manual_seed(1)
    value = fid.compute_fid(
        gen=generator, dataset_name="My Set", dataset_split="custom", num_gen=9, batch_size=9, z_dim=48
    )
    torch.manual_seed(1)
    theirs = fid.get_model_features(generator, Means(), z_dim=48, num_gen=9, batch_size=9, verbose=False)
    expected = frechet_distance((rows.mean(axis=0), np.cov(rows, rowvar=False)), gaussian(theirs))
    assert value == pytest.approx(expected, rel=FLOAT32_MEANS)

    with pytest.raises(
        Exception, match=r"The statistics file My Set already exists\. Use remove_custom_stats"
    ) as raised:
        fid.make_custom_stats("My Set", folder)
    assert isinstance(raised.value, FileExistsError)
    fid.remove_custom_stats("MY SET")
    assert not list(path.parent.iterdir())
    with pytest.raises(Exception, match=r"The stats file My Set does not exist\.") as raised:
        fid.remove_custom_stats("My Set")
    assert isinstance(raised.value, FileNotFoundError)


def test_statistics_of_another_mode_are_refused(folder, fake, tmp_path, small_network):
    fid.make_custom_stats("x", folder, stats_folder=tmp_path, verbose=False)
    os.rename(tmp_path / "x_clean_custom_na.npz", tmp_path / "x_legacy_pytorch_custom_na.npz")
    network = features.build_feature_extractor("legacy_pytorch", None)
    network.Engine.protocol = "pytorch-fid"
    with pytest.raises(ValueError, match="protocol"):
        fid.compute_fid(fake, mode="legacy_pytorch", dataset_name="x", dataset_split="custom", stats_folder=tmp_path)


def test_missing_statistics_say_where_to_put_them(fake, tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(features.urllib.request, "urlopen", no_network)
    monkeypatch.setenv("FASTFID_CLEANFID_STATS", str(tmp_path))
    expected = tmp_path / "ffhq_clean_train_1024.npz"
    with pytest.raises(FileNotFoundError) as raised:
        fid.compute_fid(fake, verbose=False)
    message = str(raised.value)
    assert f"https://www.cs.cmu.edu/~clean-fid/stats/{expected.name}" in message
    assert f"put it at {expected}" in message
    assert not list(tmp_path.glob("*ffhq*"))
    with pytest.raises(FileNotFoundError, match="make_custom_stats"):
        fid.compute_fid(fake, dataset_name="never made", dataset_split="custom", verbose=False)


def test_fetched_statistics_are_kept_whole(tmp_path, monkeypatch):
    np.savez(tmp_path / "server.npz", mu=np.zeros(3, np.float32), sigma=np.eye(3))
    fetched = []

    def urlopen(url, timeout):
        fetched.append(url)
        return (tmp_path / "server.npz").open("rb")

    monkeypatch.setattr(features.urllib.request, "urlopen", urlopen)
    for _ in range(2):
        mu, sigma = features.get_reference_statistics(
            "LSUN_Church", 256, split="TrainFull", stats_folder=tmp_path / "new"
        )
        np.testing.assert_array_equal(mu, np.zeros(3))
        np.testing.assert_array_equal(sigma, np.eye(3))
    assert fetched == ["https://www.cs.cmu.edu/~clean-fid/stats/lsun_church_clean_trainfull_256.npz"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lsun_church_clean_trainfull_256.npz"]


def test_a_kid_file_without_features_is_named(tmp_path):
    np.savez(tmp_path / "x_clean_custom_na_kid.npz", mu=np.zeros(3))
    with pytest.raises(ValueError, match="x_clean_custom_na_kid"):
        features.get_reference_statistics("x", 1, split="custom", metric="KID", stats_folder=tmp_path)


# Bad input.


def test_a_feature_extractor_is_not_compared_with_inception_statistics(fake):
    for side in ({"fdir1": fake}, {"gen": generator}):
        with pytest.raises(ValueError, match="custom_feat_extractor"):
            fid.compute_fid(**side, custom_feat_extractor=Means())


def test_an_invalid_combination():
    for compute in (fid.compute_fid, fid.compute_kid):
        with pytest.raises(ValueError, match="invalid combination of directories and models entered"):
            compute()
        with pytest.raises(ValueError, match="invalid combination of directories and models entered"):
            compute(fdir2="only the reference")


@pytest.mark.parametrize(
    "call",
    [
        lambda: fid.compute_fid("a", "b", mode="dirty"),
        lambda: fid.compute_kid("a", "b", mode="dirty"),
        lambda: fid.make_custom_stats("x", "a", mode="dirty"),
        lambda: fid.test_stats_exists("x", "dirty"),
        lambda: features.build_feature_extractor("dirty"),
        lambda: resize.build_resizer("dirty"),
        lambda: wrappers.CleanFID("dirty"),
    ],
)
def test_an_invalid_mode(call):
    with pytest.raises(ValueError, match="Invalid mode dirty specified"):
        call()


def test_another_network_is_refused(fake):
    for call in (
        lambda: fid.compute_fid(fake, fake, model_name="clip_vit_b_32"),
        lambda: fid.make_custom_stats("x", fake, model_name="clip_vit_b_32"),
        lambda: wrappers.CleanFID(model_name="clip_vit_b_32"),
    ):
        with pytest.raises(ValueError, match=r"model name - clip_vit_b_32 was not recognized.*custom_feat_extractor"):
            call()


def test_images_without_levels_are_said(tmp_path):
    for i in range(2):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.warns(SuspiciousInputWarning, match="no value of its 2 images exceeds 1: were images in 0..1 cast"):
        fid.get_folder_features(str(tmp_path), Means(), device="cpu", verbose=False)


def test_a_folder_without_images_is_named(tmp_path):
    for source, text in ((tmp_path, "no images"), (tmp_path / "missing", "expected a folder or a zip file")):
        with pytest.raises(ValueError, match=text) as raised:
            fid.get_folder_features(source, Means(), verbose=False)
        assert str(raised.value).startswith(str(source))


def test_unreadable_images_are_named(fake, tmp_path):
    np.save(fake / "wrong.npy", np.zeros((4, 4)))
    with pytest.raises(ImageError, match=r"wrong\.npy: expected numbers of shape \(h, w, 3\)"):
        fid.get_folder_features(fake, Means(), device="cpu", verbose=False)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("x.png", b"no picture")
    with pytest.raises(ImageError, match=r"bad\.zip/x\.png"):
        fid.get_folder_features(tmp_path / "bad.zip", Means(), device="cpu", verbose=False)


# Resizers.


@pytest.mark.parametrize("filter", ["bicubic", "bilinear", "nearest", "lanczos", "box"])
def test_pillow_resizers(filter):
    rng = np.random.default_rng(0)
    image = random_image(rng, (37, 21))
    pillow = getattr(Image.Resampling, filter.upper())
    exact = resize.make_resizer("PIL", False, filter, (16, 30))(image)
    planes = [np.asarray(Image.fromarray(image[:, :, i].astype(np.float32)).resize((16, 30), pillow)) for i in range(3)]
    assert exact.shape == (30, 16, 3)
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact, np.stack(planes, axis=2).clip(0, 255), rtol=0, atol=GREY_LEVELS)
    quantised = resize.make_resizer("PIL", True, filter, (16, 30))(image)
    np.testing.assert_array_equal(quantised, np.asarray(Image.fromarray(image).resize((16, 30), pillow)))


@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "nearest", "area"])
def test_torch_resizers(filter):
    image = random_image(np.random.default_rng(0), (37, 21))
    x = torch.from_numpy(image.transpose(2, 0, 1)).float()[None]
    align = {"align_corners": False} if filter in ("bilinear", "bicubic") else {}
    expected = torch.nn.functional.interpolate(x, size=(16, 30), mode=filter, **align)[0].permute(1, 2, 0).clip(0, 255)
    exact = resize.make_resizer("PyTorch", False, filter, (16, 30))(image)
    np.testing.assert_allclose(exact, expected.numpy(), rtol=0, atol=GREY_LEVELS)
    quantised = resize.make_resizer("PyTorch", True, filter, (16, 30))(image)
    assert quantised.dtype == np.uint8
    assert np.abs(quantised - expected.numpy()).max() < 1 + GREY_LEVELS


def test_other_resizers_are_refused():
    with pytest.raises(NotImplementedError, match=r"library \[OpenCV\] is not include"):
        resize.make_resizer("OpenCV", False, "bicubic", (9, 9))
    for library in ("PIL", "PyTorch"):
        with pytest.raises(ValueError, match="filter"):
            resize.make_resizer(library, False, "sinc", (9, 9))


# The networks.


@pytest.mark.parametrize("mode", MODES)
def test_networks_agree_with_the_engine_protocols(mode, weights):
    rng = np.random.default_rng(0)
    image = random_image(rng, (60, 80))
    network = features.build_feature_extractor(mode, "cpu")
    x = resize.build_resizer(mode)(image).transpose(2, 0, 1)[None].astype(np.float32)
    ours = network(torch.from_numpy(x))
    assert isinstance(ours, torch.Tensor)
    assert ours.shape == (1, 2048)
    np.testing.assert_allclose(ours.numpy()[0], network.engine(image[None])[0], rtol=0, atol=FEATURES)


def test_the_clean_network_does_not_resize(weights):
    with pytest.raises(ValueError, match=r"expects shape \(n, 3, 299, 299\)"):
        features.build_feature_extractor("clean", "cpu")(torch.zeros(1, 3, 80, 80))


def test_the_wrapper_takes_pictures_arrays_and_tensors(monkeypatch, capsys):
    class Small:
        def of_arrays(self, images):
            return Means()(torch.from_numpy(images)).numpy()

    monkeypatch.setattr(wrappers, "build_feature_extractor", lambda mode, device: Small())
    metric = wrappers.CleanFID(mode="clean", device="cpu")
    rng = np.random.default_rng(0)
    images = [random_image(rng) for _ in range(8)]
    for image in images[:2]:
        metric.add_real_images(Image.fromarray(image))
    metric.add_real_images(images[2])
    metric.add_real_images(torch.from_numpy(images[3]).permute(2, 0, 1))
    metric.add_gen_images(torch.from_numpy(np.stack(images[4:])).permute(0, 3, 1, 2))
    resizer = resize.build_resizer("clean")
    rows = [Means()(torch.from_numpy(resizer(image)).permute(2, 0, 1)[None]).numpy()[0] for image in images]
    expected = fid.fid_from_feats(np.stack(rows[:4]), np.stack(rows[4:]))
    assert metric.calculate_fid() == pytest.approx(expected, rel=FLOAT32_MEANS)
    assert capsys.readouterr().out == "# real images = 4\n# generated images = 4\n"
    metric.reset_real_features()
    with pytest.raises(ValueError, match="no real images"):
        metric.calculate_fid()
    metric.reset_gen_features()
    with pytest.raises(ValueError, match="image type could not be inferred"):
        metric.add_gen_images([1, 2])
    with pytest.raises(ValueError, match=r"\(h, w, 3\)"):
        metric.add_gen_images(np.zeros((4, 4), np.uint8))


def test_folders_need_no_torch(folder, fake, weights):
    code = """
import sys
sys.modules["torch"] = None
from fastfid.compat.cleanfid import fid
print(fid.compute_fid(sys.argv[1], sys.argv[1], verbose=False, device="cpu"))
try:
    fid.get_model_features(lambda z: z, None)
except ImportError as error:
    print("pip install torch" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    value, is_told = done.stdout.splitlines()
    assert abs(float(value)) < EQUAL_SETS
    assert is_told == "True"
