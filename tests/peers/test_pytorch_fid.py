"""Comparison with pytorch-fid on the same photographs and weights: features, FIDs, types, texts and the command.

NOT_REPRODUCED, at the end, lists the behaviour of pytorch-fid that is deliberately different, with the test that shows
the improvement.
"""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from tolerances import (
    EQUAL_SETS,
    FEATURES,
    FEATURES_BLOWN_UP,
    PEERS_DISTANCE,
    PEERS_EQUAL_SETS,
    PEERS_FID,
    PEERS_MOMENTS,
    PEERS_ROOT_SHOWS,
    PEERS_SINGULAR,
    SCIPYS_ROOT_SMALL,
)

from fastfid.compat.pytorch_fid import fid_score as ours
from fastfid.compat.pytorch_fid import inception as our_inception
from fastfid.errors import SuspiciousInputWarning
from fastfid.evaluation.evaluate import compute_fid, compute_statistics
from fastfid.features.inception_torch import FIDInception, load_weights

CPU = {"device": "cpu", "num_workers": 0}


@pytest.fixture(scope="module")
def inception(pytorch_fid):
    from pytorch_fid import inception

    return inception


@pytest.fixture(scope="module")
def activations(pytorch_fid, inception, few):
    """pytorch-fid's features of one folder under one pass of the network, for every layer."""
    model = inception.InceptionV3([0, 1, 2, 3])
    files = sorted(few[0].glob("*.png"))
    maps = {dims: [] for dims in inception.InceptionV3.BLOCK_INDEX_BY_DIM}

    class Tap:
        """Hands get_activations the last map and keeps the means of all."""

        def eval(self):
            model.eval()

        def __call__(self, batch):
            outputs = model(batch)
            for dims, output in zip(maps, outputs, strict=True):
                maps[dims].append(torch.nn.functional.adaptive_avg_pool2d(output, 1)[:, :, 0, 0].double().numpy())
            return outputs[-1:]

    last = pytorch_fid.get_activations(files, Tap(), batch_size=10, dims=2048, **CPU)
    features = {dims: np.concatenate(batches) for dims, batches in maps.items()}
    np.testing.assert_array_equal(last, features[2048])
    return files, features


def same_signatures(theirs, ours):
    for name, function in inspect.getmembers(theirs, inspect.isfunction):
        if function.__module__ == theirs.__name__ and not name.startswith("_"):
            expected = [(p.name, p.default, p.kind) for p in inspect.signature(function).parameters.values()]
            found = inspect.signature(getattr(ours, name)).parameters.values()
            assert [(p.name, p.default, p.kind) for p in found] == expected, name


def test_every_name_and_signature(pytorch_fid, inception):
    same_signatures(pytorch_fid, ours)
    same_signatures(inception, our_inception)
    assert ours.IMAGE_EXTENSIONS == pytorch_fid.IMAGE_EXTENSIONS
    assert our_inception.FID_WEIGHTS_URL == inception.FID_WEIGHTS_URL
    expected, found = (inspect.signature(module.InceptionV3).parameters for module in (inception, our_inception))
    assert [(p.name, p.default) for p in found.values()] == [(p.name, p.default) for p in expected.values()]
    for name in ("DEFAULT_BLOCK_INDEX", "BLOCK_INDEX_BY_DIM"):
        assert getattr(our_inception.InceptionV3, name) == getattr(inception.InceptionV3, name)
    for name in ("FIDInceptionA", "FIDInceptionC", "FIDInceptionE_1", "FIDInceptionE_2"):
        assert hasattr(our_inception, name)
        assert hasattr(inception, name)


def test_the_parsers_take_the_same(pytorch_fid):
    lines = [
        ["a", "b"],
        ["--batch-size", "7", "--num-workers", "3", "a", "b", "--device", "cuda:0"],
        ["--dims", "64", "--save-stats", "a", "b"],
    ]
    for line in lines:
        assert vars(ours.parser.parse_args(line)) == vars(pytorch_fid.parser.parse_args(line))


@pytest.mark.parametrize("dims", [64, 192, 768, 2048])
def test_features_are_within_1e_5(activations, dims):
    files, expected = activations
    features = ours.get_activations(files, ours._Engine(dims, "cpu"), dims=dims, **CPU)
    assert features.dtype == expected[dims].dtype == np.float64
    np.testing.assert_allclose(features, expected[dims], rtol=0, atol=FEATURES)


def test_features_of_small_images_are_as_near_as_pytorch_fids_own_rounding(inception, weights, many):
    files = sorted(many[0].iterdir())[:8]
    expected = ours.get_activations(files, inception.InceptionV3([3]), dims=2048, **CPU)
    found = ours.get_activations(files, ours._Engine(2048, "cpu"), dims=2048, **CPU)
    images = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in files])).permute(0, 3, 1, 2).double()
    resized = torch.nn.functional.interpolate(images / 255, size=(299, 299), mode="bilinear", align_corners=False)
    network = FIDInception(2048)
    load_weights(network, weights)
    with torch.no_grad():
        exact = network.double()(2 * resized - 1).mean((2, 3)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=FEATURES_BLOWN_UP)
    assert np.abs(found - exact).max() <= 1.5 * np.abs(expected - exact).max()


def test_the_module_gives_the_same_bits(inception, few):
    # The same eager operations on the same weights.
    x = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in sorted(few[0].iterdir())[:2]]))
    x = x.permute(0, 3, 1, 2).float() / 255
    theirs, mine = (module.InceptionV3([0, 2, 3]).eval() for module in (inception, our_inception))
    assert list(mine.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        for expected, found in zip(theirs(x), mine(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    # A fine-tuned network of pytorch-fid's users can be loaded into ours.
    mine.load_state_dict(theirs.state_dict())


def test_torchvisions_network_is_there_too(inception, monkeypatch):
    import torchvision

    original = torchvision.models.inception_v3
    torch.manual_seed(0)
    network = original(weights=None, init_weights=False).eval()
    monkeypatch.setattr(torchvision.models, "inception_v3", lambda **options: network)  # its weights: 104 MB to fetch
    x = torch.rand(1, 3, 299, 299)
    with torch.no_grad():
        theirs, mine = (
            module.InceptionV3([1, 3], use_fid_inception=False).eval()(x) for module in (inception, our_inception)
        )
    for expected, found in zip(theirs, mine, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dims", [64, 192])
def test_fid_of_more_images_than_dimensions_is_within_1e_6(pytorch_fid, many, dims):
    paths = [str(path) for path in many]
    expected = pytorch_fid.calculate_fid_given_paths(paths, 50, "cpu", dims, 0)
    found = ours.calculate_fid_given_paths(paths, 50, "cpu", dims, 0)
    assert type(found) is type(expected)
    assert found == pytest.approx(expected, rel=PEERS_FID)
    assert compute_fid(*many, dims=dims, device="cpu") == found


@pytest.mark.parametrize("dims", [64, 768])
def test_fid_of_fewer_images_than_dimensions_is_within_1e_4(pytorch_fid, few, dims):
    paths = [str(path) for path in few]
    expected = pytorch_fid.calculate_fid_given_paths(paths, 50, torch.device("cpu"), dims, 0)
    found = ours.calculate_fid_given_paths(paths, 50, torch.device("cpu"), dims, 0)
    assert found == pytest.approx(expected, abs=PEERS_SINGULAR)


def test_a_callers_model_gives_the_same_features(pytorch_fid, inception, few):
    files = sorted(few[0].glob("*.png"))[:6]
    model = inception.InceptionV3([0])
    expected = pytorch_fid.get_activations(files, model, 4, 64, **CPU)
    np.testing.assert_array_equal(ours.get_activations(files, model, 4, 64, **CPU), expected)
    # And pytorch-fid takes ours.
    np.testing.assert_array_equal(
        pytorch_fid.get_activations(files, our_inception.InceptionV3([0]), 4, 64, **CPU), expected
    )


def test_decoding_is_the_same(pytorch_fid, tmp_path):
    """Grey, palette, alpha, CMYK, 16 bit, animated, turned by EXIF: what Pillow's convert("RGB") makes of them."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    rgba = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    Image.fromarray(rgba[:, :, :3]).quantize(16).save(tmp_path / "palette.png")
    Image.fromarray(rgba).convert("RGB").convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "sixteen.png")
    frames = [Image.fromarray(rgba[:, :, i : i + 3]) for i in (0, 1)]
    frames[0].save(tmp_path / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rgba[:, :, :3]).save(tmp_path / "turned.jpg", exif=exif)

    class Identity:
        def eval(self):
            pass

        def __call__(self, batch):
            return [batch.flatten(1)[:, :, None, None]]

    files = sorted(tmp_path.iterdir())
    assert len(files) == 7
    expected = pytorch_fid.get_activations(files, Identity(), 1, 1800, **CPU)
    with pytest.warns(SuspiciousInputWarning, match=r"several frames|more than 8 bits") as caught:
        found = ours.get_activations(files, Identity(), 1, 1800, **CPU)
    assert len(caught) == 2
    np.testing.assert_array_equal(found, expected)


GAUSSIANS = [(4, 4, 1), (64, 64, 2023), (32, 256, 2023), (1024, 64, 2023)]


@pytest.mark.parametrize(("n", "d", "seed"), GAUSSIANS)
def test_distances_of_random_gaussians(pytorch_fid, n, d, seed):
    rng = np.random.RandomState(seed)
    x, y = rng.randn(n, d), rng.randn(n, d)
    arguments = (x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False))
    expected = pytorch_fid.calculate_frechet_distance(*arguments)
    found = ours.calculate_frechet_distance(*arguments)
    assert type(found) is type(expected)
    tolerance = {"rel": PEERS_DISTANCE} if n > d else {"abs": PEERS_SINGULAR}
    assert found == pytest.approx(expected, **tolerance)


def raised(function, *arguments):
    with pytest.raises(Exception) as information:  # noqa: PT011 - which one is what is asked
        function(*arguments)
    return information.value


def test_exceptions_and_texts_are_the_same(pytorch_fid, few, tmp_path):
    def distance(*arguments):
        return lambda module: module.calculate_frechet_distance(*arguments)

    existing = str(tmp_path / "there.npz")
    np.savez(existing, mu=np.zeros(2), sigma=np.eye(2))
    cases = [
        distance([0, 0], np.eye(2), [0], np.eye(1)),
        distance([0, 0], np.eye(2), [0, 0], np.eye(3)),
        lambda module: module.calculate_fid_given_paths([existing, "no such path"], 50, "cpu", 2048),
        lambda module: module.save_fid_stats(["no such path", "out.npz"], 50, "cpu", 2048),
        lambda module: module.save_fid_stats([str(few[0]), existing], 50, "cpu", 2048),
    ]
    for case in cases:
        expected, found = raised(case, pytorch_fid), raised(case, ours)
        assert (type(found), str(found)) == (type(expected), str(expected))


@pytest.mark.parametrize("seed", range(3))
def test_the_imaginary_component_is_the_same(pytorch_fid, seed):
    rng = np.random.default_rng(seed)
    indefinite = rng.standard_normal((5, 5))
    indefinite = indefinite + indefinite.T
    arguments = (np.zeros(5), indefinite, np.zeros(5), np.eye(5))
    expected, found = (raised(module.calculate_frechet_distance, *arguments) for module in (pytorch_fid, ours))
    assert isinstance(found, type(expected))
    texts = [str(error).split() for error in (expected, found)]
    assert [text[:2] for text in texts] == [["Imaginary", "component"]] * 2
    assert float(texts[1][2].rstrip(":")) == pytest.approx(float(texts[0][2]), rel=SCIPYS_ROOT_SMALL)
    assert float(texts[0][2]) == pytest.approx(np.abs(scipy.linalg.sqrtm(indefinite).imag).max(), rel=SCIPYS_ROOT_SMALL)


def test_statistics_files_are_read_by_either(pytorch_fid, few, tmp_path, capsys):
    folder = str(few[0])
    theirs, mine = str(tmp_path / "theirs.npz"), str(tmp_path / "mine.npz")
    printed = []
    for module, path in ((pytorch_fid, theirs), (ours, mine)):
        module.save_fid_stats([folder, path], 20, "cpu", 64, 0)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == f"Saving statistics for {folder}\n"
    with np.load(theirs) as expected, np.load(mine) as found:
        for key in ("mu", "sigma"):
            assert (found[key].dtype, found[key].shape) == (expected[key].dtype, expected[key].shape)
            np.testing.assert_allclose(found[key], expected[key], **PEERS_MOMENTS)
    for module in (pytorch_fid, ours):
        assert abs(module.calculate_fid_given_paths([theirs, mine], 20, "cpu", 64)) < PEERS_SINGULAR


# The command, point by point.


def command(module, environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@pytest.fixture(scope="module")
def reference(environment, many, tmp_path_factory):
    """What ``python -m pytorch_fid`` prints of two folders, and a statistics file of its making."""
    done = command("pytorch_fid", environment, *many, "--dims", "64", "--device", "cpu", "--num-workers", "0")
    assert done.returncode == 0, done.stderr
    saved = tmp_path_factory.mktemp("saved") / "real.npz"
    again = command("pytorch_fid", environment, "--save-stats", many[0], saved, *("--dims", "64", "--num-workers", "0"))
    assert again.returncode == 0, again.stderr
    return done.stdout, saved


@pytest.mark.parametrize("module", ["fastfid", "fastfid.compat.pytorch_fid"])
def test_the_command_prints_the_same_line(environment, reference, many, module):
    expected, saved = reference
    assert expected.startswith("FID:  ")
    for paths in (many, (saved, many[1])):
        done = command(module, environment, *paths, "--dims", "64", "--device", "cpu", "--num-workers", "0")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("FID:  ")
        assert done.stdout.count("\n") == 1
        assert float(done.stdout.split()[-1]) == pytest.approx(float(expected.split()[-1]), rel=PEERS_FID)


def test_pytorch_fid_reads_statistics_of_our_command(environment, reference, many, tmp_path):
    saved = tmp_path / "ours.npz"
    done = command("fastfid", environment, "--save-stats", many[0], saved, "--dims", "64", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    theirs = command("pytorch_fid", environment, saved, reference[1], "--dims", "64")
    assert theirs.returncode == 0, theirs.stderr
    assert abs(float(theirs.stdout.split()[-1])) < PEERS_EQUAL_SETS


@pytest.mark.parametrize("module", ["pytorch_fid", "fastfid", "fastfid.compat.pytorch_fid"])
def test_usage_errors_exit_with_2_and_bad_input_with_1(environment, module, tmp_path, few):
    for arguments in (["one"], ["a", "b", "--dims", "65"], ["a", "b", "--batch-size", "many"]):
        done = command(module, environment, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
    np.savez(tmp_path / "out.npz", mu=np.zeros(2), sigma=np.eye(2))
    for arguments in (["missing", tmp_path / "out.npz"], ["--save-stats", few[0], tmp_path / "out.npz"]):
        done = command(module, environment, *arguments)
        assert (done.returncode, done.stdout) == (1, ""), arguments


# Behaviour that is not reproduced: pytorch-fid fails where fastfid does not, or is silent where fastfid warns.


def test_better_two_statistics_files_need_no_weights(environment, reference, tmp_path):
    paths = [reference[1], reference[1]]
    bare = {
        **environment,
        "TORCH_HOME": str(tmp_path),
        "FASTFID_WEIGHTS": str(tmp_path / "missing"),
        "http_proxy": "",
        "https_proxy": "http://127.0.0.1:9",
    }
    assert command("pytorch_fid", bare, *paths, "--dims", "64").returncode == 1
    for module in ("fastfid", "fastfid.compat.pytorch_fid"):
        done = command(module, bare, *paths)
        assert done.returncode == 0, done.stderr
        assert abs(float(done.stdout.split()[-1])) < EQUAL_SETS


def test_better_scipy_is_not_needed_nor_its_removed_argument(pytorch_fid, monkeypatch):
    original = scipy.linalg.sqrtm

    def of_scipy_1_18(A):
        return original(A)

    monkeypatch.setattr(scipy.linalg, "sqrtm", of_scipy_1_18)
    arguments = (np.zeros(2), np.eye(2), np.ones(2), np.eye(2))
    with pytest.raises(TypeError, match="disp"):
        pytorch_fid.calculate_frechet_distance(*arguments)
    assert ours.calculate_frechet_distance(*arguments) == 2


def test_better_equal_sets_have_distance_zero(pytorch_fid, few):
    rows = np.random.default_rng(0).standard_normal((10, 256))
    arguments = (rows.mean(axis=0), np.cov(rows, rowvar=False)) * 2
    assert abs(pytorch_fid.calculate_frechet_distance(*arguments)) > PEERS_ROOT_SHOWS
    paths = [str(few[0])] * 2
    assert ours.calculate_fid_given_paths(paths, 50, "cpu", 64, 0) == pytest.approx(0, abs=EQUAL_SETS)


def test_better_an_empty_folder_is_named(pytorch_fid, inception, tmp_path):
    model = inception.InceptionV3([0])
    assert "batch_size" in str(raised(pytorch_fid.compute_statistics_of_path, str(tmp_path), model, 50, 64, "cpu", 0))
    found = raised(ours.compute_statistics_of_path, str(tmp_path), model, 50, 64, "cpu", 0)
    assert str(found).startswith(f"{tmp_path}: no images; expected a folder with files ending in bmp")


def test_better_path_objects_work(pytorch_fid, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    assert isinstance(raised(pytorch_fid.compute_statistics_of_path, path, None, 1, 2, "cpu"), AttributeError)
    assert ours.calculate_fid_given_paths([path, path], 50, "cpu", 64) == 0


def test_better_an_output_without_suffix_is_not_overwritten(pytorch_fid, reference, tmp_path, capsys):
    out = tmp_path / "out.npz"
    out.write_bytes(b"precious")
    paths = [str(reference[1]), str(tmp_path / "out")]
    assert isinstance(raised(ours.save_fid_stats, paths, 50, "cpu", 64), RuntimeError)
    assert out.read_bytes() == b"precious"
    pytorch_fid.save_fid_stats(paths, 50, "cpu", 64)
    assert out.read_bytes() != b"precious"


def test_better_mixed_sizes_work(pytorch_fid, inception, tmp_path):
    for i, size in enumerate([(80, 90), (100, 80), (80, 90)]):
        Image.new("RGB", size, (i, 50 * i, 9)).save(tmp_path / f"{i}.png")
    model = inception.InceptionV3([0])
    assert isinstance(
        raised(pytorch_fid.compute_statistics_of_path, str(tmp_path), model, 3, 64, "cpu", 0), RuntimeError
    )
    one_by_one = pytorch_fid.get_activations(sorted(tmp_path.iterdir()), model, 1, 64, **CPU)
    for network in (model, ours._Engine(64, "cpu")):
        mu, _ = ours.compute_statistics_of_path(str(tmp_path), network, 3, 64, "cpu", 0)
        np.testing.assert_allclose(mu, one_by_one.mean(axis=0), rtol=0, atol=FEATURES)


@pytest.mark.filterwarnings("ignore:Degrees of freedom", "ignore:divide by zero", "ignore:invalid value")
def test_better_one_image_is_an_error(pytorch_fid, inception, few):
    files, model = sorted(few[0].iterdir())[:1], inception.InceptionV3([0])
    assert np.isnan(pytorch_fid.calculate_activation_statistics(files, model, 1, 64, "cpu", 0)[1]).all()
    found = raised(ours.calculate_activation_statistics, files, model, 1, 64, "cpu", 0)
    assert isinstance(found, ValueError)
    assert "at least 2 images" in str(found)


def test_better_the_module_starts_in_evaluation_mode(inception):
    assert inception.InceptionV3([0]).training
    assert not our_inception.InceptionV3([0]).training


def test_better_files_passed_over_are_counted(environment, many, few, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in sorted(few[0].iterdir())[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / f"x{path.stem}.PNG").write_bytes(path.read_bytes())
    for module in ("fastfid", "fastfid.compat.pytorch_fid"):
        done = command(module, environment, folder, few[1], "--dims", "64", "--device", "cpu")
        assert done.returncode == 0, done.stderr
        assert "4 files with upper-case extensions" in done.stderr
    (folder / "sub").mkdir()
    (folder / "000.png").rename(folder / "sub" / "000.png")
    with pytest.warns(SuspiciousInputWarning, match="4 of its 8 images only repeat others"):
        assert compute_statistics(folder, dims=64, device="cpu", recursive=True, any_case=True).n == 8


def test_better_the_device_is_said(environment, few):
    done = command("fastfid", environment, *few, "--dims", "64")
    assert done.returncode == 0, done.stderr
    assert torch.cuda.is_available() or "running on the CPU: " in done.stderr


NOT_REPRODUCED = {
    "SciPy, and an argument that it removed": test_better_scipy_is_not_needed_nor_its_removed_argument,
    "a square root that does not know covariances": test_better_equal_sets_have_distance_zero,
    "two statistics files load (and fetch) the network": test_better_two_statistics_files_need_no_weights,
    "batch_size=0 for an empty folder": test_better_an_empty_folder_is_named,
    "Path objects have no endswith": test_better_path_objects_work,
    "--save-stats out overwrites out.npz": test_better_an_output_without_suffix_is_not_overwritten,
    "images of mixed sizes": test_better_mixed_sizes_work,
    "upper-case extensions and sub-folders passed over in silence": test_better_files_passed_over_are_counted,
    "the CPU in silence": test_better_the_device_is_said,
    "NaN for one image": test_better_one_image_is_an_error,
    "InceptionV3() starts in training mode": test_better_the_module_starts_in_evaluation_mode,
}


def test_the_table_of_what_is_not_reproduced_is_whole():
    named = {name for name in globals() if name.startswith("test_better_")}
    assert named == {test.__name__ for test in NOT_REPRODUCED.values()}
