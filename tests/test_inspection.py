"""fastfid inspect: what a source holds, counted by hand."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastfid import cli, inspection
from fastfid.errors import ImageError
from fastfid.inspection import inspect_source
from fastfid.sources import open_source


def encoded(size, mode="RGB", form="PNG"):
    buffer = io.BytesIO()
    Image.new(mode, size, "white").save(buffer, form)
    return buffer.getvalue()


FILES = {
    "ant/1.png": encoded((8, 6)),
    "ant/2.jpg": encoded((8, 6), form="JPEG"),
    "ant/3.png": encoded((100, 2), "P"),
    "bee/4.webp": encoded((30, 40), form="WEBP"),
    "bee/5.png": encoded((8, 6), "RGBA"),
    "bee/6.png": b"damaged",
    "notes.txt": b"",
}


@pytest.fixture(params=["folder", "x.zip"])
def path(request, tmp_path):
    target = tmp_path / request.param
    if request.param == "x.zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
    else:
        for name, data in FILES.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)
    return target


def test_everything_is_counted(path):
    found = inspect_source(path, labels="folder")
    assert (found.images, found.headers) == (6, 6)
    assert found.sizes == {(8, 6): 3, (100, 2): 1, (30, 40): 1}
    assert found.modes == {"RGB": 3, "P": 1, "RGBA": 1}
    assert found.formats == {"PNG": 3, "JPEG": 1, "WEBP": 1}
    ((name, reason),) = found.unreadable
    assert name == f"{path}/bee/6.png"
    assert "cannot be read as a picture" in reason
    assert (found.classes, found.class_names) == ({"ant": 3, "bee": 3}, ("ant", "bee"))
    assert found.notes == ["1 other file not read (.txt)"]


def test_as_json_and_as_text(path, capsys):
    assert cli.main(["inspect", str(path), "--labels", "folder", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["smallest"] == [8, 6]
    assert printed["largest"] == [30, 40]
    assert printed["sizes"][0] == {"width": 8, "height": 6, "headers": 3}
    assert printed["classes"] == [
        {"label": "ant", "name": "ant", "images": 3},
        {"label": "bee", "name": "bee", "images": 3},
    ]
    assert cli.main(["inspect", str(path), "--labels", "folder"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(path)
    assert lines[1:5] == [
        "  images      6",
        "  sizes       3 sizes, from 8 x 6 to 30 x 40; most common 8 x 6 (3)",
        "  modes       RGB (3), P (1), RGBA (1)",
        "  formats     PNG (3), JPEG (1), WEBP (1)",
    ]
    assert lines[5] == "  unreadable  1"
    assert lines[7:] == [
        "  classes     2, from class folders: ant (3), bee (3)",
        "  passed over 1 other file not read (.txt)",
    ]


def test_a_header_is_what_decoding_gives(path):
    for item in open_source(path, recursive=True):
        try:
            height, width, _ = item.load().shape
        except ImageError:
            with pytest.raises(ImageError, match=f"^{item.name}: "):
                item.header()
        else:
            assert item.header()[:2] == (width, height)


def test_no_picture_is_decoded(path, monkeypatch):
    monkeypatch.setattr("fastfid.sources.picture.Decoder.to_rgb", lambda *_: pytest.fail("decoded"))
    assert inspect_source(path, recursive=True).headers == 6


def test_the_network_is_not_loaded(path):
    script = (
        "import sys; from fastfid.cli import main; main(['inspect', sys.argv[1], '--recursive'])\n"
        "assert not {'onnxruntime', 'torch', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, stdout=subprocess.DEVNULL)


def test_a_share_of_the_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "DEFAULT_HEADERS", 50)
    for i in range(200):
        (tmp_path / f"{i:03}.png").write_bytes(encoded((1 + i, 1)))
    found = inspect_source(tmp_path)
    assert (found.images, found.headers, len(found.sizes)) == (200, 50, 50)
    assert inspect_source(tmp_path).sizes == found.sizes
    widths = np.array([width for width, _ in found.sizes])
    assert 60 < widths.mean() < 140  # of the whole, as far as 50 can tell: 100 +- 3 * 8.2 and more
    assert len(np.unique(np.diff(widths))) > 4  # no period
    assert "(of 50 headers, 25.00% of the images)" in found.text()
    assert inspect_source(tmp_path, all_headers=True).headers == 200


def test_the_hash_is_splitmix64():
    """Its first output of the state 0 is that of the reference implementation."""
    mixed = inspection.mixed_hash(np.array([1], np.uint64))
    assert mixed.tolist() == [0xE220A8397B1DCDAF]


def test_labels_are_those_that_the_source_carries(tmp_path, capsys):
    images = np.zeros((7, 5, 4, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images, np.array([3, 0, 3, 1, 9, 8, 7]))
    found = inspect_source(tmp_path / "x.npz")
    assert found.classes == {0: 1, 1: 1, 3: 2, 7: 1, 8: 1, 9: 1}
    assert (found.sizes, found.formats) == ({(4, 5): 7}, {"array": 7})
    assert "6, from arr_1: largest and smallest: 3 (2), " in found.text()
    assert cli.main(["inspect", str(tmp_path / "x.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels_from"] == "arr_1"
    assert inspect_source(images).text().splitlines()[-1] == "  classes     no labels"


def test_streams_are_read_to_their_end():
    found = inspect_source(iter(np.zeros((7, 5, 4, 3), np.uint8)))
    assert (found.images, found.headers) == (7, 7)


def test_names_cannot_control_the_terminal(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a\x1b[2J.png", b"damaged")
    assert "\x1b" not in inspect_source(tmp_path / "x.zip").text()


def test_what_is_no_source_is_one_sentence(tmp_path, capsys):
    assert cli.main(["inspect", str(tmp_path / "nowhere")]) == 1
    assert "Invalid path" in capsys.readouterr().err
    np.savez(tmp_path / "s.npz", mu=np.zeros(2), sigma=np.eye(3))
    assert cli.main(["inspect", str(tmp_path / "s.npz")]) == 1
    assert "sigma: declares shape (3, 3)" in capsys.readouterr().err
    with pytest.raises(TypeError, match="unexpected keyword arguments: recursve"):
        inspect_source(tmp_path, recursve=True)
