"""Run directories of one set, and of the FID alone: ``run_dir=`` and ``fastfid stats --run-dir``."""

import numpy as np
import pytest
from PIL import Image
from stubs import GridMeans

from fastfid import cli, compute_fid, compute_statistics, evaluate
from fastfid.scale import RunDirectory


@pytest.fixture
def pictures(tmp_path):
    """Two folders, of 70 and of 40 pictures."""
    rng = np.random.default_rng(0)
    for name, high, number in (("real", 256, 70), ("fake", 200, 40)):
        (tmp_path / name).mkdir()
        for i in range(number):
            Image.fromarray(rng.integers(0, high, (9, 11, 3), dtype=np.uint8)).save(tmp_path / name / f"{i:03}.png")
    return tmp_path / "real", tmp_path / "fake"


class Unused(GridMeans):
    def forward(self, batch):
        raise AssertionError("the network ran")


def equal(a, b):
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in ("mu", "sigma")) and a.n == b.n


def test_statistics_of_a_run_have_the_bits_of_one_process(pictures, tmp_path):
    plain = compute_statistics(pictures[0], extractor=GridMeans())
    run = RunDirectory(tmp_path / "run")
    assert equal(compute_statistics(pictures[0], extractor=GridMeans(), run_dir=run), plain)
    assert (run.done, run.found) == (3, 0)
    again = compute_statistics(pictures[0], extractor=Unused(), run_dir=tmp_path / "run")
    assert equal(again, plain)
    assert again.reservoir.rows.tobytes() == plain.reservoir.rows.tobytes()
    with pytest.raises(ValueError, match="reads real, but now real and fake is to be read; --fresh starts over"):
        evaluate(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="run_dir: does not go with cache"):
        compute_statistics(pictures[0], extractor=GridMeans(), run_dir=tmp_path / "run", cache=True)


def test_the_fid_alone_takes_a_run_directory(pictures, tmp_path):
    plain = compute_fid(*pictures, extractor=GridMeans())
    assert compute_fid(*pictures, extractor=GridMeans(), run_dir=tmp_path / "run") == plain
    assert compute_fid(*pictures, extractor=Unused(), run_dir=tmp_path / "run") == plain


def test_the_command_writes_the_same_file(weights, pictures, monkeypatch, capsys):
    monkeypatch.chdir(pictures[0].parent)
    for path in sorted(pictures[0].iterdir())[40:]:
        path.unlink()

    def run(*words):
        code = cli.main(["stats", "real", *words])
        return code, capsys.readouterr().err

    network = ("--dims", "64")
    assert run("-o", "plain.npz", "--quiet", *network) == (0, "")
    assert run("-o", "a.npz", "--quiet", *network, "--run-dir", "run") == (0, "")
    code, err = run("-o", "b.npz", *network, "--run-dir", "run")
    assert code == 0
    assert "fastfid: real: 2 of 2 tasks were done before\n" in err
    files = {name: np.load(f"{name}.npz") for name in ("plain", "a", "b")}
    for name in ("a", "b"):
        assert set(files[name].files) == set(files["plain"].files)
        assert all(files[name][key].tobytes() == files["plain"][key].tobytes() for key in ("mu", "sigma", "n"))
    code, err = run("-o", "c.npz", "--quiet", "--dims", "192", "--run-dir", "run")
    assert (code, "dims is 64 there, 192 here; --fresh starts over" in err) == (1, True)
    with pytest.raises(SystemExit) as ended:
        cli.main(["stats", "real", "-o", "d.npz", "--fresh"])
    assert ended.value.code == 2
    assert "--fresh: is of --run-dir" in capsys.readouterr().err


def test_an_interrupt_says_what_is_kept(pictures, tmp_path, capsys):
    class Interrupted(GridMeans):
        calls = 0

        def forward(self, batch):
            self.calls += len(batch)
            if self.calls > 40:
                raise KeyboardInterrupt
            return super().forward(batch)

    with pytest.raises(KeyboardInterrupt):
        compute_statistics(pictures[0], extractor=Interrupted(), run_dir=tmp_path / "run")
    assert f"{tmp_path}/run: the Parts of 1 tasks are kept; the same command goes on\n" in capsys.readouterr().err
