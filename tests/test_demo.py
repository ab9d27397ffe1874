"""The demo: pictures, disturbances, table and plot."""

import re

import numpy as np
import pytest
from PIL import Image
from tolerances import PRINTED_3

from fastfid import demo
from fastfid.study import figures


@pytest.fixture(scope="module")
def crops():
    return demo.clean_crops()


def test_crops_are_real_and_always_the_same(crops):
    assert len(crops) == 128
    assert all(crop.shape == (192, 192, 3) and crop.dtype == np.uint8 for crop in crops)
    assert len({crop.tobytes() for crop in crops}) > 120
    assert all((a == b).all() for a, b in zip(crops[:20], demo.clean_crops()[:20], strict=True))


@pytest.mark.parametrize("disturbance", demo.DISTURBANCES, ids=lambda d: d.name)
def test_disturbances_rise_and_leave_the_crop_alone(crops, disturbance):
    some = crops[::16]
    before = [crop.copy() for crop in some]

    def error(level):
        pairs = zip(demo.disturbed(some, disturbance, level), some, strict=True)
        return np.mean([np.square(spoilt - crop.astype(float)).mean() for spoilt, crop in pairs])

    errors = [error(level) for level in disturbance.levels]
    assert 0 < errors[0] < errors[1] < errors[2]
    assert all((a == b).all() for a, b in zip(some, before, strict=True))


def test_the_whole_demo_on_fewer_crops(capsys, tmp_path, monkeypatch, weights):
    monkeypatch.setattr(demo, "NUM_CROPS", 8)
    results = demo.run(tmp_path / "plot.png", device="cpu", progress=False)
    assert list(results) == [d.name for d in demo.DISTURBANCES]
    for name, values in results.items():
        assert 0 < values[0] < values[1] < values[2], name
    out = capsys.readouterr().out
    assert "n = 8 < d = 2048" in out
    for disturbance in demo.DISTURBANCES:
        row = next(line for line in out.splitlines() if line.startswith(disturbance.name))
        printed = [float(value) for value in re.findall(r"\d+\.\d{3}", row)]
        np.testing.assert_allclose(printed, results[disturbance.name], rtol=0, atol=PRINTED_3)
    picture = Image.open(tmp_path / "plot.png")
    assert picture.width > 1200
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 1000  # curves and photographs, no empty canvas


def test_the_command_line_passes_its_options_on(run, monkeypatch):
    given = []
    monkeypatch.setattr(demo, "run", lambda *paths, **options: given.append((*paths, options)))
    assert run("demo") == (0, "", "")
    assert run("demo", "-o", "x.png", "--device", "cpu", "--weights", "w.pth", "--quiet") == (0, "", "")
    assert given == [
        ("fastfid-demo.png", {"device": "auto", "weights": None, "progress": "lines"}),
        ("x.png", {"device": "cpu", "weights": "w.pth", "progress": False}),
    ]


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(figures, "_has", lambda module: module != "skimage")
    with pytest.raises(ImportError, match=r"needs scikit-image: pip install '\.\[demo\]' in fastfid's source folder"):
        demo.run()


def test_no_folder_for_the_plot(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        demo.run(tmp_path / "no" / "plot.png")
