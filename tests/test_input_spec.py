"""An InputSpec's preprocessing beside the tools that define it, and its JSON file."""

import json
import math
import threading

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tolerances import GREY_LEVELS, NETWORKS_INPUT

from fastfid.features.preparation import Preparation
from fastfid.input_spec import InputSpec, spec_path

pytestmark = pytest.mark.usefixtures("torchvision_importable")

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = [(32, 32), (50, 41), (41, 50), (224, 300), (300, 224), (97, 613), (7, 5), (1, 1), (33, 32)]
SCALED = {"mean": MEAN, "std": STD}


def noise(*size):
    return np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)


def pictures():
    yield from (noise(*size) for size in SIZES)
    yield from (skimage.data.astronaut(), skimage.data.coffee()[:301, 7:])


def levels(prepared, spec):
    """The grey levels (3, h, w) that an input was made of, in float64."""
    return (prepared.astype(np.float64) * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]) * 255


def same_bits_of(levels_8_bit, spec):
    """The input in float64 of grey levels (h, w, 3)."""
    return ((levels_8_bit.astype(np.float64) / 255 - spec.mean) / spec.std).transpose(2, 0, 1)


# -------------------------------------------------------------------------------------------------- tools' transforms


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_pillow_on_8_bits_has_pillows_bits(filter, channels):
    """As dgm-eval resizes for DINOv2: squash, every grey level is Pillow's own."""
    spec = InputSpec((32, 32), filter=filter, rounding="pillow-uint8", channels=channels, **SCALED)
    prepare = Preparation(spec)
    for image in pictures():
        resized = np.asarray(Image.fromarray(image).resize((32, 32), getattr(Image.Resampling, filter.upper())))
        ordered = resized[:, :, ::-1] if channels == "bgr" else resized
        got = levels(prepare(image), spec)
        np.testing.assert_array_equal(np.rint(got), ordered.transpose(2, 0, 1))
        np.testing.assert_allclose(prepare(image), same_bits_of(ordered, spec), rtol=0, atol=NETWORKS_INPUT)


@pytest.mark.parametrize(("filter", "antialias"), [("bilinear", False), ("bilinear", True), ("bicubic", True)])
@pytest.mark.parametrize("rounding", ["none", "clip"])
def test_torchs_resize_of_floats(filter, antialias, rounding):
    """As edm2 resizes for DINOv2: bicubic, antialiased, on float32 0..255, not clipped."""
    spec = InputSpec((40, 24), filter=filter, antialias=antialias, rounding=rounding, **SCALED)
    for image in pictures():
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        x = torch.nn.functional.interpolate(x, (40, 24), mode=filter, antialias=antialias, align_corners=False)[0]
        expected = x.clamp(0, 255) if rounding == "clip" else x
        got = levels(Preparation(spec)(image), spec)
        np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=GREY_LEVELS)


@pytest.mark.parametrize("size", [(61, 40), (300, 200), (1024, 700)])
@pytest.mark.parametrize(("filter", "antialias"), [("bilinear", False), ("bilinear", True), ("bicubic", True)])
def test_torchs_float32_places_of_the_filter(filter, antialias, size):
    """They show in noise: the same resize with its places in float64 is up to 4e-3 grey levels from torch's."""
    spec = InputSpec((224, 224), filter=filter, antialias=antialias, **SCALED)
    image = noise(*size)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(x, (224, 224), mode=filter, antialias=antialias, align_corners=False)[0]
    np.testing.assert_allclose(levels(Preparation(spec)(image), spec), expected.numpy(), rtol=0, atol=GREY_LEVELS)


@pytest.mark.parametrize("size", [(61, 40), (300, 200), (1024, 700)])
def test_pillows_resize_of_floats(size):
    """As dgm-eval --clean_resize and pyiqa resize: each channel in mode F, clipped."""
    spec = InputSpec((224, 224), filter="bicubic", rounding="clip", **SCALED)
    image = noise(*size)
    planes = [Image.fromarray(image[:, :, c].astype(np.float32), mode="F") for c in range(3)]
    expected = np.stack([np.asarray(plane.resize((224, 224), Image.BICUBIC)) for plane in planes]).clip(0, 255)
    np.testing.assert_allclose(levels(Preparation(spec)(image), spec), expected, rtol=0, atol=GREY_LEVELS)


def test_tensorflow_1s_bilinear():
    """As torch-fidelity resizes for every extractor of its own: its code is the truth."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as theirs

    spec = InputSpec((40, 24), filter="tf1-bilinear", antialias=False, **SCALED)
    for image in pictures():
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        expected = theirs(x, size=(40, 24), align_corners=False)[0]
        got = levels(Preparation(spec)(image), spec)
        np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=GREY_LEVELS)


@pytest.mark.parametrize(("shorter", "crop"), [(None, 32), (37, 32), (32, 32)])
def test_torchvisions_resize_and_center_crop_of_pictures(shorter, crop):
    """As CLIP's own transform: Resize(n, bicubic) of a Pillow picture, CenterCrop(n), ToTensor, Normalize."""
    from torchvision import transforms

    spec = InputSpec((crop, crop), "shorter", "bicubic", True, "pillow-uint8", "center", shorter_side=shorter, **SCALED)
    theirs = transforms.Compose(
        [
            transforms.Resize(shorter or crop, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(crop),
        ]
    )
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    for image in pictures():
        expected = theirs(Image.fromarray(image))
        got = Preparation(spec)(image)
        np.testing.assert_array_equal(np.rint(levels(got, spec)), np.asarray(expected).transpose(2, 0, 1))
        np.testing.assert_allclose(got, finish(expected).numpy(), rtol=0, atol=NETWORKS_INPUT)


@pytest.mark.parametrize("size", [(32, 32), (20, 33), (33, 20)])
def test_torchvisions_resize_and_center_crop_of_tensors(size):
    from torchvision import transforms

    spec = InputSpec(size, "shorter", crop="center", shorter_side=35, **SCALED)
    theirs = transforms.Compose([transforms.Resize(35, antialias=True), transforms.CenterCrop(size)])
    for image in pictures():
        expected = theirs(torch.from_numpy(image).permute(2, 0, 1).float())
        got = levels(Preparation(spec)(image), spec)
        np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=GREY_LEVELS)


def test_cmmds_crop_comes_before_the_resize():
    """google-research's cmmd: the square of the shorter side, its corner rounded down, then Pillow's bicubic."""
    spec = InputSpec((32, 32), filter="bicubic", rounding="pillow-uint8", crop="center", **SCALED)
    for image in pictures():
        width, height = (picture := Image.fromarray(image)).size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        expected = np.asarray(square.resize((32, 32), resample=Image.BICUBIC)).transpose(2, 0, 1)
        np.testing.assert_array_equal(np.rint(levels(Preparation(spec)(image), spec)), expected)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("crop", [None, "center"])
@pytest.mark.parametrize("rounding", ["none", "pillow-uint8"])
def test_a_place_is_filled_with_the_same_bits(layout, crop, rounding):
    spec = InputSpec((24, 24), filter="bicubic", rounding=rounding, crop=crop, layout=layout, channels="bgr", **SCALED)
    plain = InputSpec((24, 24), filter="bicubic", rounding=rounding, crop=crop, mean=MEAN[::-1], std=STD[::-1])
    prepare = Preparation(spec)
    assert prepare.shape == ((3, 24, 24) if layout == "nchw" else (24, 24, 3))
    for image in pictures():
        out = np.full(prepare.shape, np.nan, np.float32)
        assert prepare(image, out) is not None
        np.testing.assert_array_equal(out, prepare(image))
        expected = Preparation(plain)(image)[::-1]  # of RGB
        np.testing.assert_array_equal(out if layout == "nchw" else out.transpose(2, 0, 1), expected)
        backwards = np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]  # another order in memory
        np.testing.assert_array_equal(prepare(backwards), prepare(image))


@pytest.mark.parametrize("std", [1e-30, 1e30])
def test_the_extremes_of_std_give_finite_inputs(std):
    """Also of grey levels beyond black and white, to which a filter overshoots."""
    black_or_white = np.random.default_rng(0).integers(0, 2, (9, 9, 1)) * 255
    image = np.kron(black_or_white, np.ones((3, 3, 3))).astype(np.uint8)
    got, of_1 = (Preparation(InputSpec((40, 40), filter="bicubic", std=(one,) * 3))(image) for one in (std, 1.0))
    assert of_1.max() > 1
    np.testing.assert_allclose(got * std, of_1, rtol=0, atol=NETWORKS_INPUT)


def test_threads_share_a_preparation():
    prepare = Preparation(InputSpec((24, 24), "shorter", crop="center"))
    images = [noise(30 + i, 50) for i in range(100)]
    expected = [prepare(image) for image in images]
    found = {}

    def work(start):
        for i in range(start, 100, 4):
            found[i] = prepare(images[i])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, one in enumerate(expected):
        np.testing.assert_array_equal(found[i], one)


def test_images_that_do_not_fit():
    exact = Preparation(InputSpec((20, 30), "none"))
    assert exact(noise(20, 30)).shape == (3, 20, 30)
    with pytest.raises(ValueError, match=r"is 30 x 20, and the InputSpec resizes nothing to its size 20 x 30"):
        exact(noise(30, 20))
    cropped = Preparation(InputSpec((20, 30), "none", crop="center"))
    image = noise(41, 43)
    expected = image[10:30, 6:36]  # from (41 - 20) / 2 and (43 - 30) / 2, rounded to even
    np.testing.assert_array_equal(np.rint(cropped(image) * 255), expected.transpose(2, 0, 1))
    with pytest.raises(ValueError, match=r"is 19 x 99, smaller than the crop of 20 x 30"):
        cropped(noise(19, 99))
    for rounding in ("none", "pillow-uint8"):
        strips = Preparation(InputSpec((224, 224), "shorter", rounding=rounding, crop="center"))
        assert strips(noise(1, 99)).shape == (3, 224, 224)
        with pytest.raises(ValueError, match=r"is 1 x 500, which resized .* has more than 16,777,216 pixels"):
            strips(noise(1, 500))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), "x"):
        with pytest.raises(TypeError, match=r"expected a uint8 image \(h, w, 3\), got"):
            exact(wrong)
    with pytest.raises(ValueError, match=r"^expected an image of 1 to 1048576 pixels a side, got height 1, width"):
        Preparation(InputSpec((1, 1)))(noise(1, 2**20 + 1))
    with pytest.raises(ValueError, match=r"at least one pixel, got uint8 \(0, 4, 3\)"):
        exact(np.zeros((0, 4, 3), np.uint8))


# --------------------------------------------------------------------------------------------------------- JSON files


def test_a_spec_comes_back_from_its_file(tmp_path):
    spec = InputSpec((20, 30), "shorter", "bicubic", True, "pillow-uint8", "center", MEAN, STD, "nhwc", "bgr", 37)
    spec = InputSpec(**{**vars(spec), "output": "pooled", "select": "token:3", "post": "l2-sqrt-d"})
    path = tmp_path / "model.fastfid.json"
    spec.save(path)
    assert InputSpec.load(path) == spec
    assert set(json.loads(path.read_text())) == set(InputSpec.__dataclass_fields__)
    InputSpec(None, "none").save(path)  # replaces
    assert InputSpec.load(str(path)) == InputSpec(None, "none")
    path.write_text('{"size": [224, 224]}')
    assert InputSpec.load(path) == InputSpec((224, 224))
    assert spec_path("a.b/model.v2.onnx") == "a.b/model.v2.fastfid.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a JSON object of size, resize, filter,"),
        ("[1]", "expected a JSON object of size, .*; got list"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"size": [224, 224], "colour": "rgb"}', "unknown key 'colour': expected size, resize"),
        ('{"resize": "none"}', r"expected the key 'size', \[height, width\]"),
        ('{"size": [224, 224], "size": [336, 336]}', "the key 'size' comes twice"),
        ('{"size": [224, 224], "mean": [0, 0, NaN]}', "NaN is no JSON number"),
        ('{"size": [224, 224], "std": [0, 1, 1]}', r"std: expected numbers from 1e-30 to 1e\+30"),
        ('{"size": [224, 224], "std": [1e999, 1, 1]}', "std: expected finite numbers"),
        ('{"size": 224}', r"size: expected \(height, width\) in pixels, or None; got 224"),
        ('{"size": [224, 224], "antialias": "yes"}', "antialias: expected True or False, got 'yes'"),
        ('{"size": [224, 224], "crop": false}', "crop: expected center, or None"),
        ('{"size": [224, 224], "filter": "tf1-bilinear"}', "antialias: expected False for filter 'tf1-bilinear'"),
        ('{"size": [224, 224]}' + " " * (1 << 20), "it has more than 1048576 bytes"),
    ],
)
def test_files_that_are_no_spec(tmp_path, text, message):
    path = tmp_path / "spec.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"spec\.json: .*{message}"):
        InputSpec.load(path)


def test_the_protocol_tells_every_field_apart():
    base = {"size": (32, 32), "resize": "shorter", "crop": "center"}
    changes = [
        {},
        {"size": (16, 16)},
        {"shorter_side": 40},
        {"resize": "squash"},
        {"resize": "squash", "crop": None},
        {"resize": "none"},
        {"resize": "none", "crop": None},
        {"filter": "bicubic"},
        {"filter": "tf1-bilinear", "antialias": False},
        {"antialias": False},
        {"rounding": "clip"},
        {"rounding": "pillow-uint8"},
        {"mean": (0, 0, math.nextafter(0, 1))},
        {"std": (1, 1, 2)},
        {"layout": "nhwc"},
        {"channels": "bgr"},
        *({"select": word} for word in ("token:0", "token:1", "mean-tokens", "mean-spatial")),
        {"post": "l2"},
        {"post": "l2-sqrt-d"},
    ]
    protocols = [InputSpec(**{**base, **change}).protocol for change in changes]
    assert len(set(protocols)) == len(changes)
    assert all(protocol.isprintable() for protocol in protocols)
    # The name of the output is in the identity.
    assert InputSpec(**base, output="y").protocol == InputSpec(**base, shorter_side=32).protocol == protocols[0]
