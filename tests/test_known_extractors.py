"""The known extractors: their table, the export from checkpoints, and the recipe of docs/extractors.md as it stands.

tests/extractors_truth compares every row with the other packages' modules; here the truth is torch's own layers.
"""

import json
import os
import re
import struct
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pages
import pytest
import skimage.data
import torch
from PIL import Image
from stubs import crops
from tolerances import GREY_LEVELS, TRANSFORMERS_FEATURES
from tool_transforms import TRANSFORMS

import fastfid
from fastfid.features.known import KNOWN, find_known, table
from fastfid.features.known.checkpoint import read_checkpoint
from fastfid.features.known.export import export_known
from fastfid.features.known.shapes import Transformer
from fastfid.features.preparation import Preparation

NAME = "dinov2-vitl14/dgm-eval"
SMALL = replace(KNOWN[NAME].shape, dim=24, depth=2, heads=2, hidden=40)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class HubLike(torch.nn.Module):
    """DINOv2 of torch's own layers: 37 x 37 positions, resized by a scale of 16.1 / 37 as the hub's code does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.patches = torch.nn.Conv2d(3, 24, 14, 14)
        self.token = torch.nn.Parameter(torch.randn(1, 1, 24))
        self.positions = torch.nn.Parameter(torch.randn(1, 1 + 37 * 37, 24))
        layer = {"dim_feedforward": 40, "activation": "gelu", "batch_first": True, "norm_first": True}
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(24, 2, dropout=0, layer_norm_eps=1e-6, **layer) for _ in range(2)
        )
        self.norm = torch.nn.LayerNorm(24, eps=1e-6)
        self.gammas = [[0.5 + torch.rand(24) for _ in range(2)] for _ in range(2)]
        self.eval()

    def resized(self):
        grid = self.positions[:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
        return torch.cat([self.positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)

    def forward(self, image):
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.resized()
        for layer, (first, second) in zip(self.layers, self.gammas, strict=True):
            x = x + first * layer.self_attn(*[layer.norm1(x)] * 3, need_weights=False)[0]
            x = x + second * layer.linear2(layer.activation(layer.linear1(layer.norm2(x))))
        return self.norm(x)[:, 0]

    def checkpoint(self):
        """Its tensors under the names of facebookresearch/dinov2."""
        found = {"cls_token": self.token, "pos_embed": self.positions, "mask_token": torch.zeros(1, 24)}
        parts = {"patch_embed.proj": self.patches, "norm": self.norm}
        for i, (layer, gammas) in enumerate(zip(self.layers, self.gammas, strict=True)):
            found[f"blocks.{i}.attn.qkv.weight"] = layer.self_attn.in_proj_weight
            found[f"blocks.{i}.attn.qkv.bias"] = layer.self_attn.in_proj_bias
            parts |= {f"blocks.{i}.attn.proj": layer.self_attn.out_proj, f"blocks.{i}.norm1": layer.norm1}
            parts |= {f"blocks.{i}.norm2": layer.norm2, f"blocks.{i}.mlp.fc1": layer.linear1}
            parts |= {f"blocks.{i}.mlp.fc2": layer.linear2}
            found |= {f"blocks.{i}.ls{j}.gamma": gamma for j, gamma in enumerate(gammas, 1)}
        for name, part in parts.items():
            found |= {f"{name}.weight": part.weight, f"{name}.bias": part.bias}
        return {name: tensor.detach().clone() for name, tensor in found.items()}


@pytest.fixture(scope="module")
def truth():
    return HubLike()


@pytest.fixture
def here(tmp_path, monkeypatch, truth):
    """A folder with a checkpoint of a small network, for which the table has the large one's name."""
    monkeypatch.chdir(tmp_path)
    small = replace(KNOWN[NAME], shape=SMALL)
    monkeypatch.setattr(table, "KNOWN", {**KNOWN, NAME: small})
    torch.save(truth.checkpoint(), "dinov2_vitl14_pretrain.pth")
    return tmp_path


def in_torch(module, images):
    """Features behind dgm-eval's transform: Pillow's bicubic of 8 bits to 224 x 224, ToTensor, Normalize."""
    rows = []
    for image in images:
        resized = np.array(Image.fromarray(image).resize((224, 224), Image.BICUBIC))
        x = torch.from_numpy(resized).permute(2, 0, 1).float() / 255
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        with torch.no_grad():
            rows.append(module(x[None])[0].double().numpy())
    return np.stack(rows)


def test_the_recipe_gives_the_features_of_torch(here, run, truth):
    """From the checkpoint to the FD, by the page's commands in the page's order."""
    sets = {"real": crops(), "generated": [255 - image for image in crops()]}
    rows = {name: in_torch(truth, images) for name, images in sets.items()}
    for name, images in sets.items():
        (here / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(here / name / f"{i}.png")
    text = (pages.ROOT / "docs" / "extractors.md").read_text().partition("## From a checkpoint to FD-DINOv2")[2]
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = [line.split()[1:] for block in blocks for line in block.splitlines()]
    outputs = [run(*command) for command in commands]
    assert [code for code, _, _ in outputs] == [0] * 4, outputs
    (_, files, said), (_, fd, _), _, (_, again, _) = outputs
    assert files.splitlines() == ["dinov2.onnx", "dinov2.onnx.data", "dinov2.fastfid.json"]
    assert all((here / name).is_file() for name in files.splitlines())
    assert "licence of the weights, facebookresearch/dinov2 (without registers): Apache-2.0" in said
    assert f"{NAME}: unverified" in said
    extractor = fastfid.OnnxExtractor("dinov2.onnx", device="cpu")
    assert (extractor.dims, extractor.protocol) == (24, KNOWN[NAME].spec.protocol)
    for name, images in sets.items():
        np.testing.assert_allclose(extractor(images), rows[name], rtol=0, atol=TRANSFORMERS_FEATURES)
    label, value = fd.split()
    gaussians = [(x.mean(0), np.cov(x, rowvar=False)) for x in rows.values()]
    assert label == "FD:"
    assert float(value) == pytest.approx(fastfid.frechet_distance(*gaussians), rel=TRANSFORMERS_FEATURES)
    assert float(again.split()[1]) == pytest.approx(float(value), rel=TRANSFORMERS_FEATURES)


def test_the_exported_positions_are_the_hubs(here, truth):
    """They differ from those of `size=`, by which another implementation resizes. The bytes do not tell the folder."""
    exported = export_known(NAME, "dinov2_vitl14_pretrain.pth", "dinov2.onnx")
    expected = truth.resized().detach().numpy()
    model = onnx.load("dinov2.onnx")
    found = [onnx.numpy_helper.to_array(one) for one in model.graph.initializer if list(one.dims) == [1, 257, 24]]
    assert any(np.array_equal(one, expected) for one in found)
    grid = truth.positions[:, 1:].reshape(1, 37, 37, 24).permute(0, 3, 1, 2)
    other = torch.nn.functional.interpolate(grid, size=(16, 16), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    assert np.abs(other.detach().numpy() - expected[:, 1:]).max() > 0.1
    (here / "elsewhere").mkdir()
    os.chdir(here / "elsewhere")
    assert export_known(NAME, "../dinov2_vitl14_pretrain.pth", "dinov2.onnx").identity == exported.identity
    content = (here / "dinov2.onnx").read_bytes()
    assert str(here).encode() not in content
    assert b".py" not in content  # traces of the exporter


def safetensors(tensors, dtype="F32"):
    """The bytes of a safetensors file."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("form", ["zip", "legacy", "model", "state_dict", "safetensors", "F16", "BF16"])
def test_checkpoints_of_every_form(tmp_path, form):
    tensors = {name: tensor for name, tensor in HubLike().checkpoint().items() if name.startswith("blocks.0")}
    path = tmp_path / "checkpoint"
    kinds = {"F16": torch.float16, "BF16": torch.bfloat16}
    tensors = {name: tensor.to(kinds.get(form, torch.float32)) for name, tensor in tensors.items()}
    if form in ("model", "state_dict"):
        torch.save({form: tensors, "epoch": 3}, path)
    elif form in ("zip", "legacy"):
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    else:
        path.write_bytes(safetensors(tensors, form if form in kinds else "F32"))
    found = read_checkpoint(path)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.float().numpy())
    if form in kinds:
        torch.save(tensors, path)
        np.testing.assert_array_equal(read_checkpoint(path)[name], tensor.float().numpy())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "expected a checkpoint, got an empty file"),
        (b"no checkpoint", "expected a safetensors file or a state dict that torch saved"),
        (struct.pack("<Q", 1 << 40) + b"{}", "it is cut off: a safetensors header of 1099511627776 bytes"),
        (struct.pack("<Q", 2) + b"{}", "has no tensors"),
        (struct.pack("<Q", 65) + b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9000]}} ', "lies outside"),
        (struct.pack("<Q", 64) + b'{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 0]}}  ', "lies outside"),
    ],
)
def test_damaged_checkpoints_are_refused(tmp_path, content, text):
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=text) as error:
        read_checkpoint(path)
    assert str(error.value).startswith(str(path))


def test_code_in_a_checkpoint_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"a": torch.zeros(2)}, "args": Evil()}, "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth: refused: its pickle asks for \w+\.mkdir"):
        read_checkpoint("evil.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of TorchScript
        torch.jit.script(torch.nn.Linear(2, 2)).save("script.pt")
    with pytest.raises(ValueError, match=r"script\.pt: it is a TorchScript archive, which carries code"):
        read_checkpoint("script.pt")
    torch.save({"a": torch.zeros(2, 3).T, "b": torch.zeros(2, dtype=torch.float64)}, "odd.pth")
    for name, text in (
        ("a", "expected a contiguous tensor"),
        ("b", "expected float32, float16 or bfloat16, got Double"),
    ):
        with pytest.raises(ValueError, match=rf"odd\.pth: {name}: {text}"):
            read_checkpoint("odd.pth")[name]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.pop("blocks.1.norm2.bias"), r"lacks the tensor blocks\.1\.norm2\.bias"),
        (lambda t: t.update({"blocks.2.norm2.bias": torch.zeros(24)}), r"has the tensor blocks\.2\.norm2\.bias, which"),
        (
            lambda t: t.update(register_tokens=torch.zeros(1, 4, 24)),
            "has the tensor register_tokens, which the",
        ),
        (lambda t: t.update(pos_embed=torch.zeros(1, 258, 24)), r"pos_embed: expected shape \(1, 257, 24\), got"),
        (lambda t: t["norm.bias"].fill_(torch.nan), r"norm\.bias: has values that are not finite"),
        (lambda t: t.clear() or t.update(x=torch.zeros(1)), r"expected the tensor patch_embed\.proj\.weight \(hub or"),
    ],
)
def test_checkpoints_of_other_networks_are_refused(here, run, truth, change, text):
    tensors = truth.checkpoint()
    change(tensors)
    torch.save(tensors, "other.pth")
    code, out, err = run("extractors", "export", NAME, "other.pth", "-o", "x.onnx")
    assert (code, out) == (1, "")
    assert re.search(rf"error: other\.pth: {text}", err), err
    assert sorted(path.name for path in here.iterdir()) == ["dinov2_vitl14_pretrain.pth", "other.pth"]


def test_files_are_replaced_when_asked(here, run):
    (here / "d.onnx").write_bytes(b"mine")
    argv = ["extractors", "export", NAME, "dinov2_vitl14_pretrain.pth", "-o", "d.onnx"]
    code, _, err = run(*argv)
    assert (code, (here / "d.onnx").read_bytes()) == (1, b"mine")
    assert "d.onnx: exists (--overwrite" in err
    assert run(*argv, "--overwrite")[0] == 0
    assert fastfid.OnnxExtractor("d.onnx", device="cpu").dims == 24


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["export", NAME], "export: needs NAME, CHECKPOINT and -o FILE.onnx"),
        (["export", "dinov2-vit14", "a", "-o", "b.onnx"], "did you mean dinov2-vits14?"),
        (["list", NAME], "list: takes no NAME"),
        (["exprt"], "did you mean export?"),
        (["export", NAME, "a", "-o", "b.onnx", "--json"], "--json: is of the list"),
    ],
)
def test_wrong_usage(run, argv, text):
    code, out, err = run("extractors", *argv)
    assert (code, out) == (2, "")
    assert text in err


def test_the_list(run):
    code, out, _ = run("extractors")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == list(KNOWN)
    rows = json.loads(run("extractors", "list", "--json")[1])
    assert [row["name"] for row in rows] == list(KNOWN)
    for row, known in zip(rows, KNOWN.values(), strict=True):
        assert (row["dims"], row["protocol"]) == (known.shape.dims, known.spec.protocol)
        assert not row["verified"]
    assert sum(not row["permissive"] for row in rows) == out.count("(no permissive licence)") == 3
    with pytest.raises(ValueError, match="extractor: expected one of dinov2-vits14, "):
        find_known("dinov2")


def test_the_page_has_every_row():
    page = (pages.ROOT / "docs" / "extractors.md").read_text()
    names = re.findall(
        r"^\| `([\w/-]+)` \|", page.partition("## Known extractors")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert names == list(KNOWN)
    for name, row in KNOWN.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"`{row.spec.filter}`, `{row.spec.rounding}`" in line
        assert line.rstrip(" |").endswith(str(row.shape.dims))
        assert str(row.spec.size[0]) in line


def test_every_row_has_a_transform():
    assert list(TRANSFORMS) == list(KNOWN)


@pytest.mark.usefixtures("torchvision_importable")
@pytest.mark.parametrize("name", KNOWN)
def test_inputs_are_those_of_the_tool(name):
    """Grey levels behind the row's spec beside the tool's own transform; Pillow's 8 bits exactly."""
    spec = KNOWN[name].spec
    prepare, transform = Preparation(spec), TRANSFORMS[name]
    photo = skimage.data.astronaut()
    noise = np.random.default_rng(0).integers(0, 256, (97, 613, 3), dtype=np.uint8)
    for image in (noise, photo[:, :300].copy(), photo[:33, :32].copy(), photo[100:324, 9:233].copy()):
        ours, theirs = (
            (x.astype(np.float64).transpose(1, 2, 0) * spec.std + spec.mean) * 255
            for x in (prepare(image), transform(image).numpy())
        )
        assert ours.shape == (*spec.size, 3)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=GREY_LEVELS)
        if spec.rounding == "pillow-uint8":
            np.testing.assert_array_equal(np.rint(ours), np.rint(theirs))


def test_a_grid_of_another_size_needs_a_rule():
    with pytest.raises(ValueError, match="positions: expected a rule for 37 to 16 patches a side"):
        Transformer(224, 518, 14, 24, 1, 2, 40)


@pytest.mark.parametrize("is_verified", [True, False])
def test_an_export_says_what_there_is_to_know(run, monkeypatch, is_verified):
    name = "dinov2-vitl14/k-diffusion"
    row = replace(KNOWN[name], verified=is_verified, note="the tool rounds")
    monkeypatch.setattr("fastfid.features.known.KNOWN", {name: row})
    exported = SimpleNamespace(files=["x.onnx"], difference=1e-6, identity="onnx:x")
    monkeypatch.setattr("fastfid.features.known.export.export_known", lambda *given, **options: exported)
    code, out, err = run("extractors", "export", name, "x.pth", "-o", "x.onnx")
    assert (code, out) == (0, "x.onnx\n")
    assert (f"{name}: unverified" in err) == (not is_verified)
    assert err.splitlines()[-1] == f"fastfid: {name}: the tool rounds"
