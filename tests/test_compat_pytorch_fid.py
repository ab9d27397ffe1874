"""fastfid.compat.pytorch_fid without pytorch-fid. tests/peers/test_pytorch_fid.py compares it with pytorch-fid."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import ANOTHER_ORDER, EQUAL_GAUSSIANS, FEATURES_EXACT, FLOAT32_MEANS, MOMENTS

import fastfid.compat.pytorch_fid
from fastfid.compat.pytorch_fid import fid_score, inception
from fastfid.errors import FastfidWarning, ImageError, NumericalError, SuspiciousInputWarning

WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "scipy", "torchmetrics"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
"""


def run(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def save(path, array):
    Image.fromarray(array).save(path)
    return path


def pictures(folder, n=4, size=(12, 10), seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    return [save(folder / f"{i}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for i in range(n)]


@pytest.fixture
def statistics(tmp_path):
    """Two .npz files whose distance is known: means (0, 0, 0) and (1, 2, 2), covariances I and 4 I."""
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    np.savez(paths[0], mu=np.zeros(3), sigma=np.eye(3))
    np.savez(paths[1], mu=np.array([1.0, 2.0, 2.0], np.float32), sigma=4 * np.eye(3, dtype=np.float32))
    return paths


class Means(torch.nn.Module):
    """A model with pytorch-fid's interface: it returns a list whose first element is a map."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x):
        assert not self.training
        self.batches.append(tuple(x.shape))
        return [x]


# pytorch-fid's own unit tests (tests/test_fid_score.py), case by case.


def test_fid_of_given_statistics_is_the_squared_norm(tmp_path, monkeypatch):
    means = {"1": np.zeros(2048), "2": np.ones(2048)}

    def dummy_statistics(path, model, batch_size, dims, device, num_workers):
        return means[path[-1]], np.eye(2048)

    monkeypatch.setattr(fid_score, "compute_statistics_of_path", dummy_statistics)
    paths = [str(tmp_path / name) for name in means]
    for path in paths:
        Path(path).mkdir()
    fid = fid_score.calculate_fid_given_paths(
        paths, batch_size=2048, device=torch.device("cpu"), dims=2048, num_workers=0
    )
    assert fid == 2048
    assert type(fid) is np.float64


def test_statistics_of_a_folder_under_a_mocked_model(tmp_path):
    model = MagicMock(inception.InceptionV3)()
    model.side_effect = lambda batch: [batch.mean(dim=(2, 3), keepdim=True)]
    levels = np.array([0, 127, 255])
    for value in levels:
        save(tmp_path / f"{value}.png", np.full((4, 4, 3), value, np.uint8))
    mu, sigma = fid_score.compute_statistics_of_path(
        str(tmp_path), model, batch_size=3, dims=3, device=torch.device("cpu"), num_workers=0
    )
    scaled = levels / 255
    np.testing.assert_allclose(mu, np.full(3, scaled.mean()), rtol=FLOAT32_MEANS)
    np.testing.assert_allclose(sigma, np.full((3, 3), scaled.var(ddof=1)), rtol=FLOAT32_MEANS)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_statistics_files_come_back_as_stored(tmp_path, dtype):
    rng = np.random.default_rng(0)
    mu, sigma = rng.standard_normal(5).astype(dtype), rng.standard_normal((5, 5)).astype(dtype)
    with (tmp_path / "stats.npz").open("wb") as file:
        np.savez(file, mu=mu, sigma=sigma, arr_0=np.zeros((1, 2, 2, 3), np.uint8))  # ADM's references have more keys
    for path in (tmp_path / "stats.npz", str(tmp_path / "stats.npz")):
        stored = fid_score.compute_statistics_of_path(path, None, 1, 5, "cpu", num_workers=0)
        for value, expected in zip(stored, (mu, sigma), strict=True):
            np.testing.assert_array_equal(value, expected)
            assert value.dtype == dtype


def test_image_path_dataset_reads_every_extension(tmp_path):
    white = np.full((24, 24, 3), 255, np.uint8)
    files = [str(save(tmp_path / f"img.{extension}", white)) for extension in fid_score.IMAGE_EXTENSIONS]
    dataset = fid_score.ImagePathDataset(files)
    assert len(dataset) == 9
    for picture in dataset:
        np.testing.assert_array_equal(np.asarray(picture), white)
    transformed = fid_score.ImagePathDataset(files, transforms=lambda picture: picture.size)
    assert [len(batch[0]) for batch in torch.utils.data.DataLoader(transformed, batch_size=9)] == [9]


# The distance.


def test_distance_takes_lists_scalars_and_other_dtypes():
    assert fid_score.calculate_frechet_distance(1.0, 4.0, 3.0, 1.0) == 5
    assert fid_score.calculate_frechet_distance([0, 0], [[1, 0], [0, 1]], [3, 4], [[1, 0], [0, 1]]) == 25
    mu, sigma = np.zeros(3, np.float32), np.eye(3, dtype=np.float32)
    value = fid_score.calculate_frechet_distance(mu, sigma, mu + 1, sigma, eps=1e-3)
    assert value == 3
    assert type(value) is np.float64


def test_singular_covariances_need_no_repair_and_print_nothing(capsys):
    mu, zeros = np.zeros(4), np.zeros((4, 4))
    assert fid_score.calculate_frechet_distance(mu, zeros, mu, np.eye(4)) == 4
    rank_one = np.outer(np.arange(4.0), np.arange(4.0))
    assert fid_score.calculate_frechet_distance(mu, rank_one, mu, rank_one) == pytest.approx(0, abs=EQUAL_GAUSSIANS)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (([0, 0], np.eye(2), [0], np.eye(2)), "Training and test mean vectors have different lengths"),
        (([0, 0], np.eye(2), [0, 0], np.eye(3)), "Training and test covariances have different dimensions"),
    ],
)
def test_distance_asserts_equal_shapes(arguments, text):
    with pytest.raises(AssertionError, match=text):
        fid_score.calculate_frechet_distance(*arguments)


def test_an_indefinite_covariance_is_an_imaginary_component():
    # ignite's port of pytorch-fid looks for this text with this matrix.
    with pytest.raises(ValueError, match="Imaginary component"):
        fid_score.calculate_frechet_distance([0, 0], [[-1, 1], [1, 1]], [0, 0], np.eye(2))


# A caller's own model.


def test_a_distance_beyond_float64_is_no_imaginary_component():
    with pytest.raises(NumericalError, match="the distance exceeds the range of float64"):
        fid_score.calculate_frechet_distance([1e200], [[1.0]], [0.0], [[1.0]])


def test_a_callers_model_gets_scaled_images_and_is_averaged(tmp_path):
    files = pictures(tmp_path, n=5)
    model = Means().train()
    features = fid_score.get_activations(files, model, batch_size=2, dims=3)
    assert features.shape == (5, 3)
    assert features.dtype == np.float64
    expected = [(np.asarray(Image.open(file)) / np.float32(255)).astype(float).mean((0, 1)) for file in files]
    np.testing.assert_allclose(features, expected, rtol=FLOAT32_MEANS)
    assert model.batches == [(2, 3, 12, 10), (2, 3, 12, 10), (1, 3, 12, 10)]


def test_images_of_one_folder_may_differ_in_size(tmp_path):
    pictures(tmp_path / "a", n=3, size=(12, 10))
    save(tmp_path / "a" / "1b.png", np.zeros((7, 9, 3), np.uint8))
    mu, sigma = fid_score.compute_statistics_of_path(tmp_path / "a", Means(), 50, 3, "cpu")
    assert mu.shape == (3,)
    assert sigma.shape == (3, 3)


def test_a_model_with_other_dims_is_refused(tmp_path):
    files = pictures(tmp_path)
    for read in (fid_score.get_activations, fid_score.calculate_activation_statistics):
        with pytest.raises(ValueError, match=r"3"):
            read(files, Means(), dims=64)


def test_statistics_are_those_of_the_activations(tmp_path):
    files = pictures(tmp_path, n=9)
    features = fid_score.get_activations(files, Means(), dims=3)
    mu, sigma = fid_score.calculate_activation_statistics(files, Means(), dims=3)
    np.testing.assert_allclose(mu, features.mean(axis=0), rtol=MOMENTS)
    np.testing.assert_allclose(sigma, np.cov(features, rowvar=False), rtol=MOMENTS)


def test_a_batch_larger_than_the_data_is_announced(tmp_path, capsys):
    fid_score.get_activations(pictures(tmp_path), Means(), batch_size=50, dims=3)
    text = "Warning: batch size is bigger than the data size. Setting batch size to data size\n"
    assert capsys.readouterr().out == text


# Paths.


def test_two_statistics_files_load_no_network(statistics, monkeypatch):
    monkeypatch.setattr(fid_score, "make_extractor", None)
    for paths in (statistics, [str(path) for path in statistics]):
        value = fid_score.calculate_fid_given_paths(paths, 50, "cpu", 2048)
        assert value == pytest.approx(9 + 3 + 12 - 2 * 6, rel=ANOTHER_ORDER)


def test_an_invalid_path_is_found_before_any_work(statistics, tmp_path, monkeypatch):
    monkeypatch.setattr(fid_score, "compute_statistics_of_path", None)
    missing = str(tmp_path / "missing")
    with pytest.raises(RuntimeError) as raised:
        fid_score.calculate_fid_given_paths([str(statistics[0]), missing], 50, "cpu", 2048)
    assert str(raised.value) == f"Invalid path: {missing}"
    with pytest.raises(RuntimeError, match="Invalid path"):
        fid_score.save_fid_stats([missing, str(tmp_path / "out.npz")], 50, "cpu", 2048)


def test_a_folder_without_images_says_so(tmp_path):
    save(tmp_path / "A.PNG", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"no images.*png.*1 with upper-case"):
        fid_score.compute_statistics_of_path(str(tmp_path), Means(), 50, 3, "cpu")


def test_files_with_upper_case_extensions_are_counted(tmp_path):
    pictures(tmp_path, n=3)
    save(tmp_path / "B.PNG", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "sub").mkdir()
    pictures(tmp_path / "sub", n=2)
    with pytest.warns(FastfidWarning, match="1 files with upper-case"):
        mu, _ = fid_score.compute_statistics_of_path(str(tmp_path), Means(), 50, 3, "cpu")
    features = fid_score.get_activations(sorted(tmp_path.glob("*.png")), Means(), dims=3)
    np.testing.assert_allclose(mu, features.mean(axis=0), rtol=MOMENTS)


def test_images_without_levels_are_said(tmp_path):
    files = [save(tmp_path / f"{i}.png", np.full((4, 4, 3), i, np.uint8)) for i in range(2)]
    with pytest.warns(SuspiciousInputWarning, match="files: no value of its 2 images exceeds 1: were images in 0..1"):
        fid_score.get_activations(files, Means(), dims=3)


def test_a_batch_of_no_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got 0"):
        fid_score.get_activations(pictures(tmp_path), Means(), batch_size=0, dims=3)


def test_one_image_is_an_error(tmp_path):
    pictures(tmp_path, n=1)
    with pytest.raises(ValueError, match="at least 2"):
        fid_score.compute_statistics_of_path(str(tmp_path), Means(), 50, 3, "cpu")


def test_an_unreadable_image_is_named(tmp_path):
    pictures(tmp_path, n=2)
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    with pytest.raises(ImageError, match=r"broken\.png"):
        fid_score.compute_statistics_of_path(str(tmp_path), Means(), 50, 3, "cpu")


def test_sides_of_other_dims_are_refused(statistics, tmp_path):
    np.savez(tmp_path / "c.npz", mu=np.zeros(4), sigma=np.eye(4))
    with pytest.raises(AssertionError, match="mean vectors have different lengths"):
        fid_score.calculate_fid_given_paths([statistics[0], tmp_path / "c.npz"], 50, "cpu", 2048)


# Writing statistics.


def test_statistics_are_saved_for_every_reader(statistics, tmp_path, capsys):
    out = tmp_path / "out.npz"
    fid_score.save_fid_stats([str(statistics[1]), str(out)], 50, "cpu", 2048)
    assert capsys.readouterr().out == f"Saving statistics for {statistics[1]}\n"
    with np.load(out) as file:
        np.testing.assert_array_equal(file["mu"], [1, 2, 2])
        assert file["mu"].dtype == file["sigma"].dtype == np.float64


@pytest.mark.parametrize("name", ["out.npz", "out"])
def test_an_output_is_never_overwritten(statistics, tmp_path, name):
    (tmp_path / "out.npz").write_bytes(b"precious")
    with pytest.raises(RuntimeError, match="Existing output file: "):
        fid_score.save_fid_stats([str(statistics[0]), str(tmp_path / name)], 50, "cpu", 2048)
    assert (tmp_path / "out.npz").read_bytes() == b"precious"


# The command.


def test_the_command_saves_statistics(statistics, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.npz"
    monkeypatch.setattr(sys, "argv", ["pytorch-fid", "--save-stats", str(statistics[1]), str(out)])
    fid_score.main()
    assert capsys.readouterr().out == f"Saving statistics for {statistics[1]}\n"
    with np.load(out) as file:
        np.testing.assert_array_equal(file["sigma"], 4 * np.eye(3))


def test_the_module_of_the_command_is_a_command_too(statistics):
    command = [sys.executable, "-m", "fastfid.compat.pytorch_fid.fid_score", *map(str, statistics)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "FID:  12.0\n"


def test_the_command_prints_what_pytorch_fid_prints(statistics):
    command = [sys.executable, "-m", "fastfid.compat.pytorch_fid", *map(str, statistics)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "FID:  12.0\n"
    bad = subprocess.run([*command, "--dims", "65"], capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "invalid choice: 65" in bad.stderr


# The names, also under pytorch-fid's, and without PyTorch.


def test_the_package_stands_in_for_pytorch_fid(statistics):
    code = """
import sys, fastfid.compat.pytorch_fid
sys.modules["pytorch_fid"] = fastfid.compat.pytorch_fid
import pytorch_fid
from pytorch_fid import fid_score
from pytorch_fid.fid_score import calculate_fid_given_paths
from pytorch_fid.inception import InceptionV3
import pytorch_fid.fid_score
assert pytorch_fid.fid_score is fid_score and fid_score.InceptionV3 is InceptionV3
assert InceptionV3.BLOCK_INDEX_BY_DIM == {64: 0, 192: 1, 768: 2, 2048: 3}
assert pytorch_fid.__version__ == "0.3.0"
print(calculate_fid_given_paths(sys.argv[1:], 50, "cpu", 2048))
"""
    done = run(code, *statistics)
    assert done.stdout == "12.0\n", done.stderr


@pytest.mark.parametrize("module", [fid_score, inception])
def test_an_import_under_another_name_gives_the_module(monkeypatch, module):
    name = module.__name__.rpartition(".")[2]
    monkeypatch.setitem(sys.modules, "pytorch_fid", fastfid.compat.pytorch_fid)
    monkeypatch.setitem(sys.modules, f"pytorch_fid.{name}", None)  # put back in the end
    del sys.modules[f"pytorch_fid.{name}"]
    assert importlib.import_module(f"pytorch_fid.{name}") is module


def test_a_part_that_is_missing_is_not_called_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastfid.compat.pytorch_fid._network", None)
    monkeypatch.delattr(fastfid.compat.pytorch_fid, "_network", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"fastfid\.compat\.pytorch_fid\._network"):
        inception.InceptionV3  # noqa: B018 - the access fails


def test_without_torch_the_numbers_work_and_the_module_says_what_to_install(statistics):
    code = (
        WITHOUT_TORCH
        + """
from fastfid.compat.pytorch_fid import fid_score, inception
print(fid_score.calculate_fid_given_paths(sys.argv[1:], 50, "cpu", 2048))
for use in (lambda: inception.InceptionV3, lambda: fid_score.InceptionV3, lambda: inception.fid_inception_v3,
            lambda: fid_score.get_activations(sys.argv[1:], print, 1)):
    try:
        use()
    except ImportError as error:
        print("pip install torch" in str(error))
try:
    inception.InceptionV4
except AttributeError as error:
    print(error)
"""
    )
    done = run(code, *statistics)
    assert done.stdout.splitlines() == [
        "12.0",
        *["True"] * 4,
        "module 'fastfid.compat.pytorch_fid.inception' has no attribute 'InceptionV4'",
    ], done.stderr


# The network as a module.


@pytest.fixture(scope="module")
def module(weights):
    return inception.InceptionV3([0, 1])


def test_the_module_starts_in_evaluation_mode_and_frozen(module):
    assert not any(layer.training for layer in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_output_blocks_come_sorted(module, weights):
    x = torch.rand(1, 3, 80, 90)
    maps = module(x)
    assert [tuple(m.shape) for m in maps] == [(1, 64, 73, 73), (1, 192, 35, 35)]
    again = inception.InceptionV3((1,))(x)
    assert len(again) == 1
    torch.testing.assert_close(again[0], maps[1], rtol=0, atol=0)


def test_the_module_is_differentiable(weights):
    model = inception.InceptionV3([0], requires_grad=True)
    x = torch.rand(1, 3, 40, 40, requires_grad=True)
    model(x)[0].square().mean().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_resize_and_scaling_can_be_left_out(module, weights):
    x = torch.rand(1, 3, 100, 100)
    resized = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    bare = inception.InceptionV3([0], resize_input=False, normalize_input=False)
    torch.testing.assert_close(bare(2 * resized - 1)[0], module(x)[0], rtol=0, atol=0)


def test_the_last_block_is_the_mean_of_its_map(weights):
    x = torch.rand(1, 3, 90, 90)
    found = inception.InceptionV3([3])(x)[0]
    assert found.shape == (1, 2048, 1, 1)
    resized = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    maps = inception.fid_inception_v3()(2 * resized - 1)
    torch.testing.assert_close(found[..., 0, 0], maps.mean(dim=(2, 3)), rtol=0, atol=FEATURES_EXACT)


def test_the_network_of_torchvision(monkeypatch):
    """With a torchvision whose layers note their names; tests/peers compares the values with torchvision's own."""
    went = []

    class Layer(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            went.append((self.name, x.shape[2]))
            return x

    class Network:
        def __getattr__(self, name):
            return Layer(name)

    given = {}
    models = SimpleNamespace(inception_v3=lambda **options: given.update(options) or Network())
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    model = inception.InceptionV3([1], resize_input=False, use_fid_inception=False)
    assert given == {"weights": "DEFAULT", "init_weights": False}
    assert model(torch.rand(1, 3, 15, 15))[0].shape == (1, 3, 3, 3)
    assert went == [
        ("Conv2d_1a_3x3", 15),
        ("Conv2d_2a_3x3", 15),
        ("Conv2d_2b_3x3", 15),
        ("Conv2d_3b_1x1", 7),
        ("Conv2d_4a_3x3", 7),
    ]


def test_there_is_no_block_four():
    with pytest.raises(AssertionError, match="Last possible output block index is 3"):
        inception.InceptionV3([4])


def test_the_whole_network_and_its_blocks(weights):
    network = inception.fid_inception_v3()
    assert not network.training
    assert inception.FID_WEIGHTS_URL.endswith("pt_inception-2015-12-05-6726825d.pth")
    x = torch.rand(1, 192, 9, 9)
    # The network's own blocks, under the names and constructors that pytorch-fid gives them.
    block = inception.FIDInceptionA(192, pool_features=32)
    block.load_state_dict(network.Mixed_5b.state_dict())
    torch.testing.assert_close(block.eval()(x), network.Mixed_5b(x), rtol=0, atol=0)
    for name, made in {
        "Mixed_6b": inception.FIDInceptionC(768, channels_7x7=128),
        "Mixed_7b": inception.FIDInceptionE_1(1280),
        "Mixed_7c": inception.FIDInceptionE_2(2048),
    }.items():
        theirs = getattr(network, name)
        made.load_state_dict(theirs.state_dict())
        x = torch.rand(1, made.branch1x1.conv.in_channels, 8, 8)
        torch.testing.assert_close(made.eval()(x), theirs(x), rtol=0, atol=0)
