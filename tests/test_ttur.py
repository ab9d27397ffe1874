"""examples/ttur: the toy problem beside its closed form, and a small GAN whose FID falls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from tolerances import PRINTED_3, SPREAD_OF_RUNS, TOY_LINEAR

ROOT = Path(__file__).resolve().parents[1]
TTUR = ROOT / "examples" / "ttur"


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.syspath_prepend(TTUR)
    import toy

    return toy


@pytest.mark.parametrize("rates", [(0.001, 0.001), (0.001, 0.01), (0.005, 0.001), (0.009, 0.4)])
def test_near_the_equilibrium_the_toy_converges_at_the_rates_of_the_closed_form(toy, rates):
    start = 1e-6
    path = toy.descend(*rates, 50, start=(start, start))[:, 0]
    expected = start * np.power(np.array(toy.factors(*rates)), np.arange(51)[:, None])
    np.testing.assert_allclose(path, expected, rtol=TOY_LINEAR, atol=start * TOY_LINEAR)


def test_from_afar_two_time_scales_reach_the_equilibrium_first(toy):
    large, small, two, _ = (np.linalg.norm(toy.descend(*rates, 600)[-1]) for rates in toy.RATES.values())
    assert 1000 * two < small
    assert large > 0.1  # 1 - 200 * 0.01 is -1: x goes to and fro
    x, y = toy.descend(0.001, 0.01, 2000)[-1, 0]
    assert abs(toy.objective(x, y) - 100) < toy.objective(*toy.START) * TOY_LINEAR


@pytest.mark.parametrize("rates", [(0.001, 0.001), (0.001, 0.01), (0.005, 0.001)])
def test_noise_leaves_the_deviations_of_the_closed_form(toy, rates):
    """An AR(1) process each, from the equilibrium: 20 times the slowest memory, then 200 runs of 3,000 steps."""
    path = toy.descend(*rates, 8000, noise=0.05, runs=200, start=(0.0, 0.0))[5000:]
    found = np.sqrt(np.square(path).mean(axis=(0, 1)))
    np.testing.assert_allclose(found, toy.stationary_deviations(*rates, 0.05), rtol=SPREAD_OF_RUNS)


def test_the_gradients_are_those_of_the_objective(toy):
    x, y, h = np.array(0.3), np.array(-0.7), 1e-6
    numeric = [
        (toy.objective(x + h, y) - toy.objective(x - h, y)) / (2 * h),
        (toy.objective(x, y + h) - toy.objective(x, y - h)) / (2 * h),
    ]
    np.testing.assert_allclose(toy.gradients(x, y), numeric, rtol=TOY_LINEAR)


def test_the_committed_results_of_the_toy_are_those_of_the_command(toy):
    kept = json.loads((TTUR / "results" / "toy.json").read_text())
    assert [tuple(one["rates"]) for one in kept[::2]] == list(toy.RATES.values())
    for one in kept:
        if not one["noise"]:
            path = toy.descend(*one["rates"], 4000)
            norm = float(np.linalg.norm(path[-1], axis=1)[0])
            assert one["last_norm"] == pytest.approx(norm, rel=TOY_LINEAR, abs=0)


def test_the_page_has_the_committed_results(toy):
    page = (ROOT / "docs" / "paper.md").read_text()
    for one in json.loads((TTUR / "results" / "toy.json").read_text()):
        if one["noise"]:
            rates, deviations = (
                ", ".join(f"{v:g}" for v in one["rates"]),
                ", ".join(f"{v:.3g}" for v in one["deviations"]),
            )
            assert f"| {rates} | 1 | {one['last_norm']:.3g} | {deviations} |" in page
    import gan

    found = json.loads((TTUR / "results" / "gan.json").read_text())
    assert gan.table(found) in page
    assert f"right on {found['classifier_accuracy']:.1%}".replace("%", " %") in page
    assert f"the other half is {found['fid_of_two_halves']:.1f}" in " ".join(page.split())


# The GAN.


def run(script, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, str(TTUR / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Ten classes of drawn digits at random places and grey levels: 400 pictures in the classes' folders."""
    root = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    font = ImageFont.load_default(size=22)
    for digit in range(10):
        (root / str(digit)).mkdir()
        for i in range(40):
            picture = Image.new("RGB", (32, 32), (int(rng.integers(0, 60)),) * 3)
            place = tuple(int(v) for v in (8 + rng.integers(-4, 5), 2 + rng.integers(-3, 4)))
            ImageDraw.Draw(picture).text(place, str(digit), font=font, fill=(int(rng.integers(180, 256)),) * 3)
            picture.save(root / str(digit) / f"{i}.png")
    return root


SMALL = ("--size", 8, "--rates", 1e-3, 4e-3, "--seeds", 1, "--steps", 200, "--every", 100, "--images", 400)


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("gan")
    return out, run("gan.py", "-o", out, "--data", digits, *SMALL, "--epochs", 100).stdout


def test_the_fid_falls_by_far_more_than_its_standard_error(trained):
    out, printed = trained
    assert "400 images; the classifier is right on" in printed
    found = json.loads((out / "gan.json").read_text())
    assert found["classifier_accuracy"] > 0.5  # chance: 0.1
    for pair in found["pairs"]:
        record = json.loads(
            (out / "work" / f"d{pair['discriminator']:g}-g{pair['generator']:g}-seed0.json").read_text()
        )
        first, *others = record["curve"]
        best = min(others, key=lambda row: row["fid"])
        assert first["fid"] - best["fid"] > 10 * (first["standard_error"] + best["standard_error"])
        assert 1 <= best["inception_score"] <= 10
    for name in ("gan-curves.png", "gan-grid.png", "gan-samples.png"):
        assert len(Image.open(out / name).convert("RGB").getcolors(1 << 24)) > 100


def test_the_table_has_the_best_of_each_kind(trained):
    out, printed = trained
    found = json.loads((out / "gan.json").read_text())
    one, two = (line.split(" | ") for line in printed.splitlines() if line.startswith(("| 1 |", "| 2 |")))
    assert one[1] == two[1] == "2"
    assert one[2] == one[3]
    assert two[2] != two[3]
    for cells, count in ((one, 1), (two, 2)):
        lowest = min(min(pair["fid"]) for pair in found["pairs"] if pair["time_scales"] == count)
        assert float(cells[4]) == pytest.approx(lowest, abs=PRINTED_3)


def test_an_interrupted_run_gives_the_curve_of_one_that_was_not(digits, trained, tmp_path):
    """The classifier is copied; the run stops after 100 steps, as its checkpoint says, and another process goes on."""
    out, _ = trained
    name = "d0.001-g0.001-seed0"
    (tmp_path / "work").mkdir()
    for file in ("classifier.onnx", "classifier.npy", "accuracy.json"):
        (tmp_path / "work" / file).write_bytes((out / "work" / file).read_bytes())
    stop = (
        "import gan; gan.Run.train = lambda self, steps, old=gan.Run.train: exit(9) if self.step else old(self, steps)"
    )
    options = ("-o", tmp_path, "--data", digits, *SMALL, "--epochs", 100)
    code = f"import sys; sys.path.insert(0, {str(TTUR)!r}); {stop}; gan.main()"
    done = subprocess.run([sys.executable, "-c", code, *map(str, options)], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert (tmp_path / "work" / f"{name}.pt").exists()
    run("gan.py", *options)
    curves = [json.loads((folder / "work" / f"{name}.json").read_text())["curve"] for folder in (out, tmp_path)]
    assert curves[0] == curves[1]
    other = run("gan.py", *options[:-1], 101, code=1)
    assert "was made with other options; give another -o" in other.stderr


def test_a_folder_without_classes_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.png")
    done = run("gan.py", "-o", tmp_path / "out", "--data", tmp_path, code=1)
    assert "expected pictures in two sub-folders or more, one for each class" in done.stderr
