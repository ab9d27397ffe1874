"""Runs the files of docs/training.md and docs/reporting.md, which stand there in full."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import peers
from fastfid import FID

ROOT = Path(__file__).resolve().parents[1]
# Of the page's numbers the tests make small ones: more images than 64 dims, in batches that do not divide them.
SMALL = {
    "run.py": {"IMAGES = 10_000": "IMAGES = 90", "BATCH = 100": "BATCH = 16"},
    "several_metrics.py": {'real="real/"': 'real="real/", dims=64'},
}
IMAGES = 90
# The first words of a block that cannot run.
MARK = "# not run here: needs "
# What needs packages of the extra "loops" is run by tests/training.
OF_OTHER_PACKAGES = ("lightning", "accelerate", "tensorboard", "wandb", "mlflow")


def blocks(page):
    """(line above, language, text) of every block of README.md or of a page in docs/."""
    path = ROOT / "docs" / page
    lines = (path if path.exists() else ROOT / page).read_text().splitlines()
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith("```")]
    assert len(fences) % 2 == 0
    found = []
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        assert lines[end] == "```", f"{page}, line {end + 1}: not the end of a block"
        text = "".join(f"{line}\n" for line in lines[start + 1 : end])
        found.append((lines[start - 1] if start else "", lines[start].removeprefix("```"), text))
    return found


def files(page):
    """Name and text of every Python block that is a file, whose name is the line above."""
    return {
        re.fullmatch(r"`(\w+\.py)`", above)[1]: text
        for above, language, text in blocks(page)
        if language == "python" and not text.startswith(MARK)
    }


def commands(page):
    """The words of every line of the blocks without a language."""
    lines = [line for _, language, text in blocks(page) if not language for line in text.splitlines()]
    return [line.split() for line in lines]


def noise(folder, images, seed=0, high=256):
    """Make a folder with this number of pictures of noise."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(images):
        Image.fromarray(rng.integers(0, high, (16, 16, 3), dtype=np.uint8)).save(folder / f"{i}.png")


class Workspace:
    """A folder with the files of docs/training.md and the statistics that they read."""

    def __init__(self, folder):
        self.folder = folder
        # torchmetrics, which Lightning imports too, needs a torchvision that loads.
        self.env = {**os.environ, **peers.prepare(folder / "peers", weights=False)}
        for name, text in files("training.md").items():
            for large, small in SMALL.get(name, {}).items():
                assert text.count(large) == 1
                text = text.replace(large, small)
            (folder / name).write_text(text)
        noise(folder / "real", IMAGES)
        for words in commands("training.md"):
            if words[:2] == ["fastfid", "stats"]:
                self.run("-m", *words, "--dims", "64")

    def run(self, *command, **env):
        """Standard output of a Python program that ends well and finds nothing wrong with the images."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "SuspiciousInputWarning" not in done.stderr, done.stderr
        return done.stdout

    def module(self):
        """The file run.py, imported."""
        spec = importlib.util.spec_from_file_location("run_of_the_page", self.folder / "run.py")
        run = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(run)
        return run

    def expected(self, parts, protocol="pytorch-fid", before=None):
        """The FID, in this process, of the images that `parts`, pairs of a number and a seed, generate.

        `before` is called between the seed of the model's weights and the model, as in the files that do so; without
        parts it returns the latents of the images.
        """
        run = self.module()
        torch.manual_seed(0)
        inputs = before() if before else None
        model = run.Generator()
        file = {"pytorch-fid": "real.npz", "torchmetrics": "real-torchmetrics.npz"}[protocol]
        fid = FID(real=self.folder / file, dims=64, protocol=protocol)
        for images, seed in parts:
            for batch in run.batches(model, images, seed):
                fid.update(batch)
        if not parts:
            fid.update(run.to_uint8(model(inputs).detach()))
        return fid.result()

    def torchrun(self, name):
        """Standard output of two processes, started by the command of the page for this file."""
        (line,) = [words for words in commands("training.md") if words[-1] == name]
        start = line.index("torchrun")
        variables = dict(word.split("=") for word in line[:start])
        return self.run("-m", "torch.distributed.run", *line[start + 1 :], **variables)


def value(output):
    """The one FID that was printed."""
    (number,) = re.findall(r"^FID (\S+)", output, re.MULTILINE)
    return float(number)
