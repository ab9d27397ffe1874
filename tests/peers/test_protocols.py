"""Every protocol end to end: features and FID of the peers' own pipelines, on photographs of mixed sizes."""

import importlib

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tolerances import FEATURES_MIXED, PEERS_FID_BLOWN_UP

from fastfid import FID, InceptionV3


def mixed_crops(n, seed, noise):
    """Crops of 32 to 420 pixels a side, one of them as the network wants it, disturbed by noise."""
    photographs = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "rocket", "retina")]
    rng = np.random.default_rng(seed)
    images = []
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        height, width = (299, 299) if i == 0 else rng.integers(32, min(420, *photograph.shape[:2]), 2)
        y, x = rng.integers(0, photograph.shape[0] - height), rng.integers(0, photograph.shape[1] - width)
        image = photograph[y : y + height, x : x + width] + noise * rng.standard_normal((height, width, 3))
        images.append(image.clip(0, 255).astype(np.uint8))
    return images


@pytest.fixture(scope="module")
def real():
    return mixed_crops(24, 0, 0)


@pytest.fixture(scope="module")
def fake():
    return mixed_crops(24, 1, 25)


def channels_first(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()


def our_distance(extractor, real, fake):
    fid = FID(dims=extractor.dims, protocol=extractor.protocol, device="cpu")
    fid.update(real, real=True)
    fid.update(fake, real=False)
    return fid.compute()


def assert_same_features(protocol, dims, images, expected):
    extractor = InceptionV3(dims, protocol=protocol, device="cpu")
    np.testing.assert_allclose(extractor(images), expected, rtol=0, atol=FEATURES_MIXED)
    return extractor


def test_tensorflow_is_torch_fidelity(environment, real, fake):
    metric = importlib.import_module("torch_fidelity.metric_fid")
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    layers = ("64", "192", "768", "2048")
    network = module.FeatureExtractorInceptionV3("inception-v3-compat", list(layers)).eval()
    with torch.inference_mode():
        sides = [[network(channels_first(image)) for image in images] for images in (real, fake)]
    for index, layer in enumerate(layers):
        theirs = [torch.cat([features[index] for features in side]) for side in sides]
        extractor = assert_same_features("tensorflow", int(layer), real, theirs[0].numpy())
        statistics = [metric.fid_features_to_statistics(features) for features in theirs]
        expected = metric.fid_statistics_to_metric(*statistics, verbose=False)[metric.KEY_METRIC_FID]
        assert our_distance(extractor, real, fake) == pytest.approx(expected, rel=PEERS_FID_BLOWN_UP)


@pytest.mark.parametrize(("antialias", "protocol"), [(True, "torchmetrics"), (False, "tensorflow")])
def test_torchmetrics_with_and_without_antialias(torchmetrics_fid, real, fake, antialias, protocol):
    metric = torchmetrics_fid(feature=768, antialias=antialias)
    some = real[:6]
    with torch.inference_mode():
        features = torch.cat([metric.inception(channels_first(image)) for image in some])
        for is_real, images in ((True, real), (False, fake)):
            for image in images:
                metric.update(channels_first(image), real=is_real)
        expected = metric.compute().item()
    extractor = assert_same_features(protocol, 768, some, features.numpy())
    assert our_distance(extractor, real, fake) == pytest.approx(expected, rel=PEERS_FID_BLOWN_UP)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, real, fake):
    root = tmp_path_factory.mktemp("mixed")
    for name, images in (("real", real), ("fake", fake)):
        (root / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{i:03}.png")
    return str(root / "real"), str(root / "fake")


def test_clean_is_clean_fid(cleanfid, environment, real, fake, folders):
    """clean-fid's own pipeline; its TorchScript network is replaced by pytorch-fid's, which has the same weights."""
    inception = importlib.import_module("pytorch_fid.inception")
    network = inception.InceptionV3([2], resize_input=False, normalize_input=False).eval()

    def extract(batch):
        with torch.inference_mode():
            maps = network((batch - 128) / 128)[0]
        return torch.nn.functional.adaptive_avg_pool2d(maps, 1)[:, :, 0, 0]

    options = {"mode": "clean", "num_workers": 0, "batch_size": 8, "device": torch.device("cpu"), "verbose": False}
    features = cleanfid.get_folder_features(folders[0], extract, **options)
    extractor = assert_same_features("clean", 768, real, features)
    expected = cleanfid.compute_fid(*folders, custom_feat_extractor=extract, **options)
    assert our_distance(extractor, real, fake) == pytest.approx(expected, rel=PEERS_FID_BLOWN_UP)


def test_pytorch_fid_is_clean_fids_legacy_mode(cleanfid, real, folders):
    """pytorch-fid itself refuses mixed sizes; clean-fid's mode legacy_pytorch resizes each image as it would."""
    model = cleanfid.build_feature_extractor("legacy_pytorch", torch.device("cpu"), use_dataparallel=False)
    options = {"num_workers": 0, "batch_size": 8, "device": torch.device("cpu"), "verbose": False}
    features = cleanfid.get_folder_features(folders[0], model, mode="legacy_pytorch", **options)
    assert_same_features("pytorch-fid", 2048, real, features)


def test_none_is_the_network_without_a_resize(environment):
    """As jax-fid feeds it; here by pytorch-fid's network with its resize switched off."""
    inception = importlib.import_module("pytorch_fid.inception")
    network = inception.InceptionV3([0, 1, 2, 3], resize_input=False).eval()
    photograph = skimage.data.astronaut()
    images = np.stack([photograph[y : y + 160, y : y + 211] for y in range(0, 300, 40)])
    with torch.inference_mode():
        maps = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    for dims, layer in zip((64, 192, 768, 2048), maps, strict=True):
        expected = torch.nn.functional.adaptive_avg_pool2d(layer, 1)[:, :, 0, 0].numpy()
        assert_same_features("none", dims, images, expected)


def test_fid_without_a_resize(pytorch_fid):
    """jax-fid is in no package index; its protocol is pytorch-fid's network and distance without the resize."""
    inception = importlib.import_module("pytorch_fid.inception")
    network = inception.InceptionV3([0], resize_input=False).eval()
    photographs = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "rocket", "retina")]
    rng = np.random.default_rng(0)

    def crops(n, noise):
        images = []
        for i in range(n):
            photograph = photographs[i % len(photographs)]
            y, x = rng.integers(0, photograph.shape[0] - 96), rng.integers(0, photograph.shape[1] - 80)
            image = photograph[y : y + 96, x : x + 80] + noise * rng.standard_normal((96, 80, 3))
            images.append(image.clip(0, 255).astype(np.uint8))
        return np.stack(images)

    sides = crops(90, 0), crops(80, 25)  # more than the 64 dimensions of the first layer
    features = []
    for images in sides:
        with torch.inference_mode():
            layer = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)[0]
        features.append(torch.nn.functional.adaptive_avg_pool2d(layer, 1)[:, :, 0, 0].double().numpy())
    moments = [(x.mean(axis=0), np.cov(x, rowvar=False)) for x in features]
    expected = pytorch_fid.calculate_frechet_distance(*moments[0], *moments[1])
    extractor = assert_same_features("none", 64, sides[0], features[0])
    assert our_distance(extractor, *sides) == pytest.approx(expected, rel=PEERS_FID_BLOWN_UP)
