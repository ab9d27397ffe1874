"""Prints the behaviour of fastfid, with all bits of results and the text of messages.

To check that a change has no effect, run ``python -m tools.behaviour > before.txt`` before the change and again after
it, on one machine, and compare the two files with ``diff``. Features depend on the processor, so files of two machines
differ. The tool needs the weights and the packages of ``.[test]``. It takes about two minutes on two cores.
"""

import contextlib
import hashlib
import io
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fastfid
from benchmarks import peers
from fastfid import cli
from fastfid.protocols import PROTOCOLS

CASES: list[tuple[str, Callable[[], Any]]] = []


def case(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Add a function to the cases."""

    def add(function: Callable[[], Any]) -> Callable[[], Any]:
        CASES.append((name, function))
        return function

    return add


def smooth(n: int, seed: int, shift: int = 0, size: int = 96) -> np.ndarray:
    """Return n smooth uint8 images (n, size, size, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, size // 8, size // 8, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in small]
    return np.clip(np.stack(large).astype(int) + shift, 0, 255).astype(np.uint8)


def make_inputs() -> None:
    """Write the input files of the cases to the current folder."""
    for name, n, seed, shift in (("real", 80, 1, 0), ("fake", 80, 2, 30), ("r6", 6, 3, 0), ("f6", 6, 4, 30)):
        os.mkdir(name)
        for i, image in enumerate(smooth(n, seed, shift)):
            Image.fromarray(image).save(f"{name}/{i:03}.png")
    os.mkdir("mixed")
    for i, (image, suffix) in enumerate(zip(smooth(8, 5), ("png", "jpg", "bmp", "webp") * 2, strict=True)):
        Image.fromarray(image).resize((64 + 5 * i, 90)).save(f"mixed/{i}.{suffix}")
    os.mkdir("empty")
    os.mkdir("broken")
    Path("broken/0.png").write_bytes(b"no picture")
    Image.fromarray(smooth(1, 6)[0]).save("broken/1.png")
    Image.fromarray(smooth(2, 6)[1]).save("broken/2.png")
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((300, 64)), rng.standard_normal((300, 64)) + 0.1
    for name, rows in (("gauss-a", x), ("gauss-b", y)):
        np.savez(f"{name}.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
        np.savez(f"{name}32.npz", mu=rows.mean(0, dtype=np.float32), sigma=np.cov(rows.T).astype(np.float32))
    np.savez("adm.npz", mu=x.mean(0), sigma=np.cov(x.T), mu_s=np.zeros(3), sigma_s=np.eye(3))
    np.savez("x_clean_custom_na.npz", mu=x.mean(0), sigma=np.cov(x.T))
    np.savez("bad-nan.npz", mu=np.full(64, np.nan), sigma=np.eye(64))
    np.savez("bad-negative.npz", mu=np.zeros(64), sigma=np.diag([-1.0] + [1.0] * 63))
    np.savez("images.npz", smooth(8, 8))
    np.save("images.npy", smooth(8, 9))
    np.save("floats.npy", smooth(8, 9).astype(np.float32))


@contextlib.contextmanager
def warnings_said(lines: list[str]) -> Iterator[None]:
    """Add the warnings of fastfid in the block to `lines`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    lines += [f"{w.category.__name__}: {w.message}" for w in caught if "fastfid" in w.category.__module__]


def shown(value: Any) -> str:
    """Return a text with all bits of a value."""
    if isinstance(value, float):
        return float(value).hex()
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape} {hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()[:16]}"
    if isinstance(value, dict):
        hidden = ("seconds", "versions", "date", "host", "threads")  # of the run, not of the product
        return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items() if k not in hidden) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    if hasattr(value, "detach"):
        return shown(value.detach().cpu().numpy())
    return repr(value)


def record(function: Callable[[], Any]) -> str:
    """Return a text with the result, the exception and the messages of a case."""
    said: list[str] = []
    with warnings_said(said):
        try:
            result = shown(function())
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
            if not isinstance(error, ValueError | TypeError | OSError | RuntimeError | ImportError):
                traceback.print_exc()
    return "\n    ".join([result, *said])


def fid(*paths: Any, **options: Any) -> Callable[[], Any]:
    """Return a case of compute_fid."""
    return lambda: fastfid.compute_fid(*paths, device="cpu", return_info=True, **options)


for _dims in (64, 192, 768, 2048):
    for _protocol in PROTOCOLS:
        CASES.append((f"fid r6 f6 {_dims} {_protocol}", fid("r6", "f6", dims=_dims, protocol=_protocol)))
for _name, _real, _fake, _options in (
    ("full", "real", "fake", {"return_info": True}),
    ("thin and full", "r6", "fake", {}),
    ("full and thin", "real", "f6", {}),
    ("mixed sizes", "mixed", "real", {}),
    ("npz of images", "images.npz", "real", {}),
    ("npy of images", "images.npy", "real", {}),
    ("one set twice", "real", "real", {}),
    ("a subset", "real", "fake", {"num": 40, "seed": 3}),
    ("alpha and exif", "real", "fake", {"alpha": True, "exif": True}),
    ("against statistics", "gauss-a.npz", "fake", {}),
    ("against ADM's", "adm.npz", "fake", {}),
    ("against clean-fid's", "x_clean_custom_na.npz", "fake", {}),
    ("an empty folder", "empty", "fake", {}),
    ("no such folder", "nowhere", "fake", {}),
    ("a broken picture", "broken", "fake", {}),
    ("a broken picture skipped", "broken", "fake", {"on_error": "skip"}),
    ("too many broken", "broken", "fake", {"on_error": "skip", "max_errors": 0}),
    ("floats", "floats.npy", "fake", {}),
    ("too small for none", "mixed", "fake", {"protocol": "none"}),
    ("unknown protocol", "real", "fake", {"protocol": "best"}),
    ("unknown device", "real", "fake", {"precision": "tf32"}),
):
    CASES.append((f"fid {_name}", fid(_real, _fake, **{"dims": 64, **_options})))
for _a, _b in (
    ("gauss-a", "gauss-b"),
    ("gauss-a32", "gauss-b32"),
    ("gauss-a", "adm"),
    ("gauss-a", "x_clean_custom_na"),
    ("bad-nan", "gauss-a"),
    ("gauss-a", "bad-negative"),
):
    CASES.append((f"statistics {_a} {_b}", fid(f"{_a}.npz", f"{_b}.npz")))


def gaussians(d: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of n rows."""
    rows = np.random.default_rng(seed).standard_normal((n, d)) * np.linspace(0.1, 3, d)
    return rows.mean(0), np.cov(rows.T)


for _d, _n in ((3, 20), (64, 40), (200, 700), (300, 150)):
    for _method in ("auto", "eigen", "newton-schulz"):
        CASES.append(
            (
                f"distance d = {_d}, n = {_n}, {_method}",
                lambda d=_d, n=_n, method=_method: fastfid.frechet_distance(
                    gaussians(d, n, 1), gaussians(d, n, 2), method=method, return_info=True
                ),
            )
        )


@case("moments: bits of the state, whatever the batches")
def _() -> Any:
    rows = np.random.default_rng(1).standard_normal((500, 40)).astype(np.float32)
    states = []
    for size in (1, 7, 500):
        moments = fastfid.Moments(40)
        for start in range(0, 500, size):
            moments.update(rows[start : start + size])
        states.append(moments.state())
    return [states[0], moments.mean, moments.covariance()]


@case("FID: update, merge, state_dict")
def _() -> Any:
    a, b = fastfid.FID(dims=64, device="cpu"), fastfid.FID(dims=64, device="cpu")
    a.update(smooth(20, 1), real=True)
    a.update(smooth(20, 2, 30), real=False)
    b.update(smooth(20, 3).transpose(0, 3, 1, 2), real=True)
    a.merge(b)
    c = fastfid.FID(dims=64, device="cpu")
    c.load_state_dict(a.state_dict())
    return [a.compute(), c.compute(), repr(c), a.state_dict()]


@case("FID: refusals")
def _() -> Any:
    metric = fastfid.FID(dims=64, device="cpu")
    said = []
    for call in (
        lambda: metric.update(smooth(2, 1), real="yes"),
        lambda: metric.update(smooth(2, 1).astype(float), real=True),
        lambda: metric.update(smooth(2, 1)[..., :2], real=True),
        lambda: metric.update(smooth(2, 1), real=True, stream=3),
        metric.compute,
        lambda: metric.load_state_dict({}),
        lambda: metric.merge(fastfid.FID(dims=192)),
    ):
        try:
            call()
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


@case("features")
def _() -> Any:
    return fastfid.InceptionV3(dims=192, device="cpu")(smooth(5, 1))


@case("compat: pytorch_fid")
def _() -> Any:
    from fastfid.compat.pytorch_fid import fid_score

    with contextlib.redirect_stderr(io.StringIO()):
        return [
            float(fid_score.calculate_fid_given_paths(["real", "fake"], 50, "cpu", 64)),
            fid_score.get_activations(["real/000.png", "real/001.png"], lambda x: [x], 2, 3),
        ]


@case("compat: torchmetrics")
def _() -> Any:
    import torch

    from fastfid.compat.torchmetrics import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=64)
    for seed, real in ((1, True), (2, False)):
        metric.update(torch.from_numpy(smooth(20, seed)).permute(0, 3, 1, 2), real=real)
    return [metric.compute(), metric.real_features_cov_sum]


@case("compat: cleanfid")
def _() -> Any:
    from fastfid.compat.cleanfid import fid as cleanfid

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return [
            float(cleanfid.compute_fid("r6", "f6", verbose=False)),
            cleanfid.compute_kid("r6", "f6", verbose=False),
        ]


def command(*argv: str) -> Callable[[], Any]:
    """Return a case of the command line: exit code, stdout, stderr."""

    def run() -> Any:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main(list(argv))
            except SystemExit as stop:
                code = stop.code
        return [code, out.getvalue(), err.getvalue()]

    return run


for _argv in (
    "real fake --dims 64 --device cpu",
    "real fake --dims 64 --device cpu --json",
    "r6 f6 --dims 64 --device cpu",
    "r6 f6 --dims 64 --device cpu --quiet",
    "gauss-a.npz gauss-b.npz",
    "gauss-a.npz gauss-b.npz --protocol clean",
    "gauss-a.npz f6 --device cpu",
    "gauss-a.npz f6 --device cpu --dims 192",
    "broken f6 --dims 64 --device cpu",
    "broken f6 --dims 64 --device cpu --on-error skip",
    "stats r6 -o s.npz --dims 64 --device cpu",
    "stats r6 -o s.npz --dims 64 --device cpu --overwrite",
    "stats r6 -o s.npz --dims 64 --device cpu",
    "s.npz f6 --device cpu",
    "nowhere f6",
    "real fake fake",
    "real fake --protocl clean",
    "weights verify",
    "--help",
    "stats --help",
    "--version",
    "completion bash",
):
    CASES.append((f"fastfid {_argv}", command(*_argv.split())))


def main() -> None:
    """Print every case."""
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as torch_home:
        peers.prepare(Path(torch_home), weights=False)
        os.chdir(work)
        make_inputs()
        for name, function in CASES:
            # The hexadecimal form of a float has a point. The address of an object has none.
            text = re.sub(r"0x[0-9a-f]{9,}(?!\.)", "ADDRESS", record(function).replace(work, "WORK"))
            print(f"{name}\n    {text}", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    sys.exit(main())
