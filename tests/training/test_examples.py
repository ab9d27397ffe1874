"""The examples of Lightning and of Hugging Face's evaluate. See test_packages.py for how these tests are run."""

import csv
import importlib.util
import io
import os
import re
import subprocess
import sys

import numpy as np
import pages
import pytest
import torch
from PIL import Image
from tolerances import PRINTED_2_DIGITS, PRINTED_6_DIGITS, ROUNDED_TO_FLOAT32

import fastfid
from benchmarks import peers

EXAMPLES = pages.ROOT / "examples"
N = 90


@pytest.fixture(scope="module")
def env(tmp_path_factory, weights):
    """The environment of a process that can import torchvision, which Lightning does; this process can too."""
    return {**os.environ, **peers.prepare(tmp_path_factory.mktemp("peers"), weights=False)}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "images"
    pages.noise(folder, N)
    return folder


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------------------ Lightning


@pytest.fixture(scope="module")
def example(env):
    return imported(EXAMPLES / "lightning_callback.py")


def test_the_callback_logs_the_fid_of_the_images_of_two_processes(example, env, real, tmp_path):
    """With a learning rate of 0, so that the model is known."""
    statistics = fastfid.compute_statistics(real, dims=64)
    statistics.save(tmp_path / "real.npz")
    text = (EXAMPLES / "lightning_callback.py").read_text()
    assert text.count("lr=0.02") == 1
    (tmp_path / "still.py").write_text(text.replace("lr=0.02", "lr=0"))
    (command,) = [words for words in pages.commands("training.md") if "examples/lightning_callback.py" in words]
    arguments = [{"real.npz": str(tmp_path / "real.npz")}.get(word, word) for word in command[2:]]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "still.py"), *arguments, "--images", str(N)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    example.lightning.seed_everything(0)
    torch.randn(1000, 8)  # the latents of the training come first
    module = example.Training()
    fid = fastfid.FID(real=statistics, dims=64)
    with torch.no_grad():
        for seed in (2, 3):  # of the second epoch's two processes
            for batch in example.generate(module, N // 2, seed):
                fid.update(batch)
    value, error, images = re.search(r"^FID (\S+) \+- (\S+) of (\d+) images$", done.stdout, re.MULTILINE).groups()
    assert float(value) == pytest.approx(fid.result().value, rel=PRINTED_6_DIGITS)
    assert float(error) == pytest.approx(fid.result().standard_error, rel=PRINTED_2_DIGITS)
    assert int(images) == N


@pytest.mark.filterwarnings("default", "error::fastfid.errors.FastfidWarning")  # Lightning's own are none of ours
def test_the_callback_logs_other_metrics_every_second_epoch(example, real, tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    seen = {}

    def generate(module, images, seed):
        assert not module.training
        assert not torch.is_grad_enabled()
        seen[seed] = list(example.generate(module, images, seed, batch=32))
        yield from seen[seed]

    class Watched(example.Training):
        def on_train_epoch_start(self):
            assert self.training  # the callback puts the mode back

    example.lightning.seed_everything(0)
    latents = torch.utils.data.DataLoader(torch.randn(200, 8), batch_size=100)
    log = example.LogMetrics(real, generate, N, ["fid", "kid"], every=2, dims=64)
    best = ModelCheckpoint(tmp_path / "best", monitor="fid", every_n_epochs=2, save_on_train_epoch_end=True)
    trainer = example.lightning.Trainer(
        max_epochs=4, callbacks=[log, best], logger=CSVLogger(tmp_path), enable_progress_bar=False, accelerator="cpu"
    )
    trainer.fit(Watched(), latents)
    (path,) = tmp_path.glob("lightning_logs/*/metrics.csv")
    rows = [row for row in csv.DictReader(path.read_text().splitlines()) if row["fid"]]
    assert [int(row["epoch"]) for row in rows] == [1, 3] == sorted(seen)
    for row, batches in zip(rows, seen.values(), strict=True):
        truth = fastfid.evaluate(real, torch.cat(batches).numpy(), metrics=["fid", "kid"], dims=64)
        for name in ("fid", "kid"):
            assert float(row[name]) == pytest.approx(truth[name].value, rel=ROUNDED_TO_FLOAT32)
            assert float(row[f"{name}_standard_error"]) == pytest.approx(
                truth[name].standard_error, rel=ROUNDED_TO_FLOAT32
            )
        assert (float(row["images_real"]), float(row["images_fake"])) == (N, N)
    assert float(best.best_model_score) == pytest.approx(min(float(row["fid"]) for row in rows), rel=ROUNDED_TO_FLOAT32)


# -------------------------------------------------------------------------------------------------------- Hugging Face


@pytest.fixture
def module(env, tmp_path, monkeypatch):
    """The module, loaded by its path, with no network and a cache of its own."""
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    import evaluate

    return evaluate.load(str(EXAMPLES / "hf_evaluate" / "fastfid_metrics.py"), cache_dir=str(tmp_path / "cache"))


def generated(n=N):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 200, (16, 16, 3), dtype=np.uint8) for _ in range(n)]


def test_the_module_gives_what_fastfid_gives(module, real):
    images = generated()
    truth = fastfid.evaluate(real, np.stack(images), metrics=["fid", "prdc"], dims=64)
    found = module.compute(predictions=images, references=str(real), metrics=["fid", "prdc"], dims=64)
    expected = {name: result.value for name, result in truth.items()}
    errors = {f"{name}_standard_error": one.standard_error for name, one in truth.items() if one.standard_error}
    assert errors.keys() == {"fid_standard_error"}
    assert found == {**expected, **errors, "images_real": N, "images_fake": N}


@pytest.mark.parametrize("kind", ["pictures", "paths", "bytes"])
def test_the_module_takes_pictures_in_batches_and_statistics(module, real, tmp_path, kind):
    images = [Image.fromarray(image) for image in generated()]
    if kind != "pictures":
        for number, image in enumerate(images):
            image.save(tmp_path / f"{number:02}.jpg", quality=80)
        images = [str(tmp_path / f"{number:02}.jpg") for number in range(N)]
        truth = fastfid.evaluate(real, images, metrics=["fid"], dims=64)
    else:
        truth = fastfid.evaluate(real, np.stack(generated()), metrics=["fid"], dims=64)
    if kind == "bytes":
        images = [{"path": None, "bytes": (tmp_path / f"{number:02}.jpg").read_bytes()} for number in range(N)]
    module.add(prediction=images[0])
    for start in range(1, N, 40):
        module.add_batch(predictions=images[start : start + 40])
    found = module.compute(references=fastfid.compute_statistics(real, dims=64), dims=64)
    assert found["fid"] == truth["fid"].value
    assert found["images_fake"] == N


def test_the_module_takes_pictures_as_they_are_in_memory(module, real, tmp_path):
    """JPEGs are not compressed again, and what was painted after a file was opened is there."""
    pictures = [Image.fromarray(image) for image in generated()]
    for number, mode in enumerate(["L", "P", "CMYK", "RGBA"]):
        pictures[number] = pictures[number].convert(mode)
    for number in range(4, N):
        path = tmp_path / f"{number:02}.jpg"
        pictures[number].save(path, quality=60)
        pictures[number] = Image.open(io.BytesIO(path.read_bytes()) if number % 2 else path)
        if number % 2 == 0:
            pictures[number].paste((255, 0, 0), (0, 0, 8, 16))
    truth = fastfid.evaluate(real, pictures, metrics=["fid"], dims=64)
    assert module.compute(predictions=pictures, references=str(real), dims=64)["fid"] == truth["fid"].value


def test_arrays_that_are_not_of_uint8_are_refused(module, real):
    with pytest.raises(ValueError, match=r"predictions: expected arrays of uint8, got int64; scale and round them"):
        module.compute(predictions=[one.astype(np.int64) for one in generated(4)], references=str(real), dims=64)


def test_sets_of_other_sizes_are_compared_and_the_module_is_used_twice(module, real):
    for n in (70, 80):
        found = module.compute(predictions=generated(n), references=str(real), dims=64)
        assert (found["images_real"], found["images_fake"]) == (N, n)


def test_references_are_asked_for_where_they_belong(module, real):
    with pytest.raises(ValueError, match=r"references: expected the real images or their statistics, got None"):
        module.compute(predictions=generated(4))
    for add in (
        lambda: module.add(prediction=generated(1)[0], reference="x"),
        lambda: module.add_batch(predictions=generated(4), references=["x"] * 4),
    ):
        with pytest.raises(ValueError, match=r"give all real images to compute\(references=\.\.\.\)"):
            add()
