"""Tasks of sets at URLs: the bits of files of this machine, and files that change or are not there."""

import multiprocessing
import pickle
import subprocess
import sys

import launching
import pytest
from packed import pack
from remote_files import serving
from stubs import AllOutputs, GridMeans

from fastfid import _remote, cli, compute_statistics, evaluate
from fastfid.evaluation import steps
from fastfid.scale import RunDirectory
from fastfid.scale.plan import Sizing, decisions, plan_of
from fastfid.sources import open_source
from fastfid.sources.base import UNVERSIONED

KINDS = ["a.zip", "a.tar", "a.tar.gz", "a.npz", "a.npy", "a.parquet", "{0..1}.shard.tar"]
N = 90


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two folders of pictures, the first one packed as well."""
    folder = tmp_path_factory.mktemp("sets")
    pack(folder, launching.make_pictures(folder, numbers=(N, 40))[0])
    return folder


@pytest.fixture
def server(folder, monkeypatch):
    monkeypatch.setattr(_remote, "_DELAYS_S", (0.0,) * 4)
    with serving({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}) as found:
        yield found


@pytest.fixture
def plain(folder):
    return dict(evaluate(folder / "real", folder / "fake", metrics=["fid", "kid"], extractor=GridMeans()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_the_bits_of_one_process_and_goes_on(server, folder, plain, tmp_path, kind):
    sides = f"{server.url}/{kind}", folder / "fake"

    def run():
        directory = RunDirectory(tmp_path / "run")
        found = evaluate(*sides, metrics=["fid", "kid"], extractor=GridMeans(), run_dir=directory)
        assert dict(found) == plain
        return directory.done, directory.found

    assert run() == (5, 0)
    for path in sorted((tmp_path / "run" / "parts" / "real").iterdir())[1:]:
        path.unlink()
    assert run() == (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_has_changed_is_refused(server, folder, tmp_path, kind):
    sides = f"{server.url}/{kind}", folder / "fake"
    evaluate(*sides, extractor=GridMeans(), run_dir=tmp_path)
    server.tag = '"2"'
    tasks = (
        r"the files of 3 of 3 tasks of .* have changed since the plan was made, first those of images 0 to 31"
        r" \(http://.*: its version was \"1\", and is \"2\"\); --fresh starts over"
    )
    with pytest.raises(ValueError, match=tasks):
        evaluate(*sides, extractor=GridMeans(), run_dir=tmp_path)
    run = RunDirectory(tmp_path, changed="fresh")
    evaluate(*sides, extractor=GridMeans(), run_dir=run)
    assert run.done == 5


def test_a_shard_that_is_added_keeps_the_parts_of_those_before(server, folder, tmp_path):
    sides = f"{server.url}/0.shard.tar", folder / "fake"
    options = {"extractor": GridMeans(), "run_dir": tmp_path}
    evaluate(*sides, **options)
    both = f"{server.url}/{{0..1}}.shard.tar", folder / "fake"
    with pytest.raises(ValueError, match="had 50 images when the plan was made, and has 90 now"):
        evaluate(*both, **options)
    run = RunDirectory(tmp_path, changed="extend")
    found = evaluate(*both, extractor=GridMeans(), run_dir=run)
    assert dict(found) == dict(evaluate(folder / "real", folder / "fake", extractor=GridMeans()))
    # The second task had 18 images, and has 32 now.
    assert (run.found, run.done) == (1 + 2, 2)


def test_a_file_that_changes_while_it_is_read(server, folder, tmp_path):
    class Changing(GridMeans):
        def forward(self, batch):
            server.tag = '"2"'
            return super().forward(batch)

    with pytest.raises(ValueError, match=r"a\.zip: (has changed since it was listed|the files of images 0 to 31 are)"):
        evaluate(f"{server.url}/a.zip", folder / "fake", extractor=Changing(), run_dir=tmp_path)
    assert list((tmp_path / "parts").rglob("*.npz")) == []


def test_a_file_that_is_gone_and_a_server_that_is_gone(server, folder, tmp_path):
    sides = f"{server.url}/{{0..1}}.shard.tar", folder / "fake"
    steps.plan(*sides, tmp_path / "run", extractor=GridMeans())
    del server.files["1.shard.tar"]
    with pytest.raises(FileNotFoundError, match=r"1\.shard\.tar"):
        steps.part(tmp_path / "run", extractor=GridMeans())
    server.status = 503
    with pytest.raises(OSError, match=r"cannot be read \(503.*0\.shard\.tar"):
        steps.part(tmp_path / "run", extractor=GridMeans())


def test_a_server_that_says_nothing_of_versions(server, folder, plain, tmp_path, capsys):
    """It is said once, where the plan is written. What can be noticed is a file of another size."""
    server.tag = None
    sides = f"{server.url}/a.tar", folder / "fake"
    for _ in range(2):
        run = RunDirectory(tmp_path)
        assert dict(evaluate(*sides, metrics=["fid", "kid"], extractor=GridMeans(), run_dir=run)) == plain
    assert [line for line in capsys.readouterr().err.splitlines() if "the server" in line] == [
        f"fastfid: {server.url}/a.tar: the server does not say which version its files are (no ETag, no time), first"
        " for images 0 to 31: a file that changes and keeps its size will not be noticed"
    ]
    server.files["a.tar"] += bytes(10240)
    with pytest.raises(ValueError, match=r"the files of 3 of 3 tasks of .*tar: its size was .*, and is "):
        evaluate(*sides, metrics=["fid", "kid"], extractor=GridMeans(), run_dir=tmp_path)


def test_the_first_file_that_has_changed_is_named(server, folder, tmp_path):
    server.tag = None
    sides = f"{server.url}/{KINDS[-1]}", folder / "fake"
    evaluate(*sides, extractor=GridMeans(), run_dir=tmp_path)
    server.files["1.shard.tar"] += bytes(10240)
    with pytest.raises(ValueError, match=r"\(http://[^ ]*/1\.shard\.tar: its size was .*, and is "):
        evaluate(*sides, extractor=GridMeans(), run_dir=tmp_path)


@pytest.mark.parametrize("tag", ['"1"', None])
def test_a_file_at_another_url_is_another_file(server, folder, tmp_path, tag):
    """Of files of one size, whose version is the same or unknown, as of npy files that were written in one second."""
    server.tag = tag
    server.files["b.npy"] = server.files["a.npy"]
    evaluate(f"{server.url}/a.npy", folder / "fake", extractor=GridMeans(), run_dir=tmp_path)
    with pytest.raises(ValueError, match=r"have changed .* 0 to 31 \(http://.*/b\.npy was not read then\); --fresh"):
        evaluate(f"{server.url}/b.npy", folder / "fake", extractor=GridMeans(), run_dir=tmp_path)


def test_states_through_every_source_of_sources(server):
    url = f"{server.url}/a.tar"
    plain = open_source(url).state_of(0, 32)
    assert len(plain) == 64
    for options in ({"labels": "auto"}, {"labels": list(range(N))}, {"num": 9}, {"on_error": "skip"}):
        assert open_source(url, **options).state_of(0, 9) == plain
    assert open_source(url).slice(3, 5).state_of(0, 5) == plain
    both = open_source([url, f"{server.url}/a.zip"])
    assert both.state_of(0, N) == plain
    assert both.state_of(0, N + 1) != plain
    server.tag = None
    assert both.state_of(0, N + 1).endswith(UNVERSIONED)


def test_a_plan_asks_once_for_the_version_of_a_file(server):
    source = open_source(f"{server.url}/a.npy")
    asked = []
    examine = source._file._examine
    source._file._examine = lambda: asked.append(1) or examine()
    plan = plan_of({"real": source}, decisions({}, {}), {"real": Sizing(10)}, None)
    assert (len(plan.tasks), len(asked)) == (9, 1)
    source.state_of(0, 10)
    assert len(asked) == 2


def test_sources_go_to_other_processes(server):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind in KINDS:
            source = open_source(f"{server.url}/{kind}")
            there = pool.apply(_first_pixels, (pickle.dumps(source),))
            assert there == [int(item.load()[0, 0, 0]) for item in source]


def _first_pixels(source):
    return [int(item.load()[0, 0, 0]) for item in pickle.loads(source).slice(0)]


@pytest.mark.parametrize("kind", ["a.tar", "a.npy"])
def test_files_that_are_read_in_order_are_read_in_blocks(server, monkeypatch, kind):
    monkeypatch.setattr(_remote, "_BLOCK_BYTES", 2**14)
    source = open_source(f"{server.url}/{kind}")
    size = len(server.files[kind])
    server.requests.clear()
    assert compute_statistics(source, extractor=GridMeans()).n == N
    spans = [last - first + 1 for first, last in server.requests]
    assert sum(spans) <= size + 2 * 2**14
    assert len(spans) <= -(-size // 2**14) + 2


def test_a_block_that_cannot_be_read_is_asked_for_again(server):
    file = _remote.random_access(_remote.known_file(f"{server.url}/a.npy"), in_order=True)
    server.breaks = 10**9
    with pytest.raises(OSError, match="cannot be read"):
        file.read(0, 10)
    server.breaks = 0
    assert file.read(0, 10) == server.files["a.npy"][:10]
    whole = server.files["a.npy"]
    assert file.read(len(whole) - 5, 100) == whole[-5:]
    assert file.read(3, 0) == b""


def test_ranks_print_what_one_process_prints(server, folder, tmp_path):
    sides = [f"{server.url}/{{0..1}}.shard.tar", folder / "fake"]
    truth = evaluate(folder / "real", folder / "fake", metrics=launching.METRICS, extractor=AllOutputs())
    expected = {name: one.value for name, one in truth.items()}
    two = launching.start(tmp_path, launching.words(sides), launching.variables_of_ranks(2))
    (code, out, err), other = launching.ended(two)
    assert (code, launching.values(out), other) == (0, expected, (0, "", "")), err


def test_a_store_needs_files_of_this_machine(server, folder, tmp_path):
    url = f"{server.url}/a.zip"
    with pytest.raises(ValueError, match=r"store: .*a\.zip: is not a file of this machine, so its features cannot be"):
        evaluate(url, folder / "fake", extractor=GridMeans(), run_dir=tmp_path / "run", store=tmp_path / "store")


def test_the_three_commands_print_what_one_process_prints(server, folder, tmp_path, capsys, weights):
    sides = [f"file://{folder}/0.shard.tar", f"{server.url}/1.shard.tar"]
    assert cli.main([*sides, "--dims", "64", "--quiet"]) == 0
    expected = capsys.readouterr().out
    assert cli.main(["plan", *sides, "--dims", "64", "--quiet", "--run-dir", str(tmp_path / "run")]) == 0
    for index in ("0", "1"):
        command = ["part", "--run-dir", str(tmp_path / "run"), "--index", index, "--of", "2", "--quiet"]
        subprocess.run([sys.executable, "-m", "fastfid", *command], check=True)
    capsys.readouterr()
    assert cli.main(["reduce", "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    assert capsys.readouterr().out == expected
