"""What a type checker says of users' scripts: wrong keywords are errors, right ones are not, and values have types.

mypy runs once over both scripts, as a user's does with the package in another place than the script.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastfid

# Every line is right; what follows "# is" is the type that mypy reveals.
RIGHT = """
import pathlib
import numpy as np
import fastfid
from fastfid import FID, Evaluator, Statistics, compute_fid, compute_statistics, evaluate

reveal_type(compute_fid("a", "b"))  # is float
reveal_type(compute_fid("a", "b", return_info=False))  # is float
reveal_type(compute_fid("a", "b", dims=64, protocol="clean", recursive=True, tol=1e-9))  # is float
record = compute_fid("a", "b", return_info=True, device=0, precision="tf32")
record["fid"]
reveal_type(compute_statistics("a", dims=2048, num=10, value_range=(-1, 1)))  # is fastfid.statistics.Statistics
evaluation = evaluate("a", "b", metrics=["fid", "kid"], dims=192, protocol="torchmetrics", any_case=True)
evaluate("a", "b", precision="float16", cache="hashes", on_error="skip", progress="lines", force=True)
reveal_type(evaluation["fid"].value)  # is float
reveal_type(evaluation["fid"].standard_error)  # is float | None
reveal_type(evaluation.real.n)  # is int | None
fid = FID(real=pathlib.Path("real.npz"), dims=64, protocol="none", device="cuda:1", num_workers=2)
FID(real="real.npz")
FID(real=Statistics(np.zeros(64), np.eye(64), n=100))
fid.update(np.zeros((2, 8, 8, 3), np.uint8))
fid.update("folder", real=False, match="*.png")
reveal_type(fid.compute())  # is float
reveal_type(fid.result().standard_error)  # is float | None
reveal_type(fid.to("cpu"))  # is fastfid.batches.fid.FID
reveal_type(fid.real)  # is fastfid.statistics.Statistics
fid.load_state_dict(fid.state_dict())
evaluator = Evaluator(["fid", "kid:torch-fidelity"], real="real", dims=64, protocol="clean", device=0, num_workers=2)
Evaluator("all")
evaluator.update(np.zeros((2, 8, 8, 3), np.uint8), exif=True)
evaluator.merge(evaluator)
reveal_type(evaluator.compute())  # is fastfid.evaluation.result.Evaluation
reveal_type(evaluator.to("cpu"))  # is fastfid.batches.evaluator.Evaluator
reveal_type(fastfid.frechet_distance(fid.real, fid.fake))  # is float
"""

# Every line after the imports is an error.
WRONG = """
from fastfid import FID, Evaluator, compute_fid, compute_statistics, evaluate
compute_fid("a", "b", protocol="cleen")
compute_fid("a", "b", dims=65)
compute_fid("a", "b", recursve=True)
compute_fid("a", "b", return_info=True, protocol="cleen")
compute_fid("a", "b", on_error="ignore")
compute_statistics("a", protocol="cleen")
compute_statistics("a", dims=65)
compute_statistics("a", recursve=True)
compute_statistics("a", layout="hwc")
evaluate("a", "b", protocol="cleen")
evaluate("a", "b", dims=65)
evaluate("a", "b", recursve=True)
evaluate("a", "b", precision="half")
FID(protocol="cleen")
FID(dims=65)
FID(recursve=True)
FID(real=3)
FID().update("a", real="fake")
FID().update("a", real=True, recursve=True)
Evaluator(["fid"], dims=65)
Evaluator(["fid"], protocol="cleen")
Evaluator().update("a", recursve=True)
Evaluator().merge(FID())
"""

# What fastfid imports and its signatures do not name: left out, which halves the time.
CONFIG = """
[mypy]
strict = True
mypy_path = packages
[mypy-torch.*,torchmetrics.*,onnxruntime.*,matplotlib.*,skimage.*]
follow_imports = skip
ignore_missing_imports = True
[mypy-fastfid.*]
ignore_errors = True
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The messages by script and line."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "packages").mkdir()
    package = Path(fastfid.__file__).parent
    (folder / "packages" / "fastfid").symlink_to(package)
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    (folder / "mypy.ini").write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-color-output", "right.py", "wrong.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 1, done.stdout + done.stderr
    found = {"right": {}, "wrong": {}}
    for line in done.stdout.splitlines():
        if match := re.match(r"(right|wrong)\.py:(\d+): (.*)", line):
            found[match[1]].setdefault(int(match[2]), []).append(match[3])
        else:
            assert line.startswith("Found"), line
    return found


def test_right_scripts_pass(said):
    expected = {}
    for number, line in enumerate(RIGHT.splitlines(), 1):
        if "  # is " in line:
            expected[number] = [f'note: Revealed type is "{line.partition("  # is ")[2]}"']
    assert said["right"] == expected


@pytest.mark.parametrize(("number", "line"), list(enumerate(WRONG.splitlines(), 1))[2:])
def test_wrong_keywords_are_errors(said, number, line):
    first = said["wrong"].get(number, ["nothing"])[0]
    assert first.startswith("error: "), line
    assert re.search(r"\[(call-overload|call-arg|arg-type)\]", first), first


def test_the_package_says_that_it_is_typed():
    assert (Path(fastfid.__file__).parent / "py.typed").exists()
