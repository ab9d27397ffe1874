"""Engines: objects that have tasks done by others, their options, and what goes to other processes."""

import pickle
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import launching
import numpy as np
import pytest
import yaml
from packed import pack
from stubs import AllOutputs, GridMeans, TwoGrids

from fastfid import InceptionV3, build_info, cli, compute_fid, compute_statistics, evaluate
from fastfid.cli.commands import parser_of
from fastfid.metrics import make_metrics
from fastfid.scale import RunDirectory
from fastfid.scale.engine import Work
from fastfid.scale.part import run_task
from fastfid.scale.plan import Sizing, decisions, plan_of
from fastfid.scale.watch import Watch
from fastfid.sources import open_source

N = 90


@pytest.fixture
def pictures(tmp_path):
    return launching.make_pictures(tmp_path, numbers=(N, N), highs=(256, 256))


class Elsewhere:
    """Does each task with what arrives of the work in a process that is sent it: backwards, and the first one twice."""

    def __init__(self):
        self.workers = 3
        self.at_work = 2
        self.retries = 1
        self.tasks = []

    def run(self, tasks, work):
        for task in [*tasks[-1:], *tasks[::-1]]:
            self.tasks.append(task)
            yield task, pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(work))(task)))


def test_any_order_and_any_number_of_times(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plain = evaluate(*pictures, metrics="all", extractor=AllOutputs())
    engine = Elsewhere()
    found = evaluate(*pictures, metrics="all", extractor=AllOutputs(), engine=engine)
    assert dict(found) == dict(plain)
    assert len(engine.tasks) == 2 * (-(-N // 32) + 1)
    (runtime,) = found.run["runtimes"]
    assert runtime == f"cpu, {build_info()['blas']}"  # this network has no runtime of its own
    assert found.run == {"engine": "Elsewhere", "workers": 2, "retries": 1, "resumed": 0, "runtimes": [runtime]}
    assert plain.run is None
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("fastfid-")] == []


def test_tasks_are_sized_for_the_workers_of_the_engine(pictures, tmp_path, monkeypatch):
    asked = []
    choose = Sizing.choose
    monkeypatch.setattr(
        Sizing, "choose", lambda n, workers, images: asked.append(workers) or choose(n, workers, images)
    )
    evaluate(*pictures, extractor=GridMeans(), engine=Elsewhere())
    assert asked == [3, 3]
    evaluate(*pictures, extractor=GridMeans(), engine=Elsewhere(), run_dir=RunDirectory(tmp_path / "run", workers=2))
    assert asked == [3, 3, 2, 2]


def test_an_engine_does_what_is_missing(pictures, tmp_path):
    run = tmp_path / "run"
    plain = evaluate(*pictures, extractor=GridMeans())
    assert evaluate(*pictures, extractor=GridMeans(), run_dir=run).run["engine"] is None
    for path in sorted(run.rglob("*.npz"))[1::2]:
        path.unlink()
    engine = Elsewhere()
    found = evaluate(*pictures, extractor=GridMeans(), engine=engine, run_dir=run)
    assert dict(found) == dict(plain)
    assert {task.first for task in engine.tasks} == {0, 32, 64}
    assert found.run["resumed"] == 3


def test_all_that_have_an_engine(pictures):
    engine = Elsewhere()
    expected = compute_statistics(pictures[0], extractor=TwoGrids(), spatial=True)
    found = compute_statistics(pictures[0], extractor=TwoGrids(), spatial=True, engine=engine)
    for one, other in ((found, expected), (found.spatial, expected.spatial)):
        np.testing.assert_array_equal(one.mu, other.mu)
        np.testing.assert_array_equal(one.sigma, other.sigma)
    record = compute_fid(*pictures, extractor=GridMeans(), engine=engine, return_info=True)
    assert record["fid"] == compute_fid(*pictures, extractor=GridMeans())
    assert record["run"]["engine"] == "Elsewhere"


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"engine": "spark"}, ValueError, r"engine: expected 'ray', or an object with run\(tasks, work\); got 'spark'"),
        ({"engine": 3}, TypeError, r"engine: expected 'ray', or an object with run\(tasks, work\); got int"),
        ({"workers": 3}, ValueError, "workers: are of an engine, and there is none"),
        (
            {"engine": Elsewhere(), "workers": 3},
            ValueError,
            "workers: are of engine='ray'; an engine that is an object",
        ),
        (
            {"engine": Elsewhere(), "cache": True},
            ValueError,
            "engine: does not go with cache; leave one of the two out",
        ),
    ],
)
def test_bad_options(pictures, options, kind, text):
    with pytest.raises(kind, match=text):
        evaluate(*pictures, extractor=GridMeans(), **options)


def test_images_that_have_no_tasks_are_refused(pictures):
    with pytest.raises(ValueError, match="array: is not made of files"):
        evaluate(np.zeros((9, 8, 8, 3), np.uint8), pictures[1], extractor=GridMeans(), engine=Elsewhere())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--workers", "2"], "--workers: is of --engine ray"),
        (["--ray-address", "auto"], "--ray-address: is of --engine ray"),
        (["--stall-timeout", "5"], "--stall-timeout: is of --engine ray"),
        (["--engine", "rai"], "expected one of ray; got 'rai'"),
        (["--engine", "ray", "--workers", "9:3"], "expected a number of workers, or the fewest and the most as 4:64"),
        (["--engine", "ray", "--workers", "0"], "expected a number of workers, or the fewest and the most as 4:64"),
        (["--engine", "ray", "--cache"], "--cache: does not go with --engine"),
        (["--engine", "ray", "--device", "cuda:1"], "--device: Ray gives each worker a GPU of its own: --device cuda"),
        (["--engine", "ray", "--save-stats"], "--engine: there is no distance with --save-stats"),
    ],
)
def test_wrong_usage(pictures, words, text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, pictures), *words])
    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_without_ray_one_sentence_says_how_to_get_it(weights, pictures, tmp_path):
    """A folder called ray in the working directory, as Ray leaves one in /tmp, is no package."""
    (tmp_path / "ray").mkdir()
    script = textwrap.dedent(
        """
        import importlib.util, sys
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name == "ray" and find(name, *rest).origin else find(
            name, *rest)
        from fastfid import cli
        sys.exit(cli.main(sys.argv[1:]))
        """
    )
    words = [*map(str, pictures), "--dims", "64", "--quiet", "--engine", "ray"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (1, "")
    sentence = "engine ray: needs Ray, which is not installed: pip install '.[ray]' in fastfid's source folder"
    assert done.stderr == f"fastfid: error: {sentence}\n"


def test_neither_the_package_nor_its_help_loads_ray_or_torch():
    script = textwrap.dedent(
        """
        import sys, fastfid, fastfid.cli
        try:
            fastfid.cli.main(["--help"])
        except SystemExit:
            print({"ray", "torch"} & set(sys.modules))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def forms(folder, pictures):
    """One set in every form that has tasks, and its options."""
    pack(folder, pictures)
    damaged = bytearray((folder / "a.tar").read_bytes())
    damaged[damaged.index(b"025.png") + 3] ^= 1
    (folder / "damaged.tar").write_bytes(damaged)
    return {
        "folder": (pictures, {}),
        "pattern": (f"{pictures}/*.png", {}),
        "zip": (folder / "a.zip", {}),
        "tar": (folder / "a.tar", {}),
        "compressed tar": (folder / "a.tar.gz", {}),
        "shards": (f"{folder}/*.shard.tar", {}),
        "list": ([folder / "a.zip", folder / "a.tar"], {}),
        "npz": (folder / "a.npz", {}),
        "npy": (folder / "a.npy", {}),
        "parquet": (folder / "a.parquet", {}),
        "labels beside pictures": (folder / "a.tar", {"labels": "auto"}),
        "labels of rows": (folder / "a.parquet", {"labels": "auto"}),
        "labels by folder": (folder / "classes.zip", {"labels": "folder"}),
        "subset": (folder / "a.tar", {"num": 40}),
        "damaged": (folder / "damaged.tar", {"on_error": "skip"}),
        "url": (f"file://{folder}/a.tar", {}),
        "url of a zip": (f"file://{folder}/a.zip", {}),
    }


KINDS = [
    *("folder", "pattern", "zip", "tar", "compressed tar", "shards", "list", "npz", "npy", "parquet"),
    *("labels beside pictures", "labels of rows", "labels by folder", "subset", "damaged", "url", "url of a zip"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_that_has_tasks_goes_to_other_processes(pictures, tmp_path, kind):
    found = forms(tmp_path, pictures[0])
    assert list(found) == KINDS
    path, options = found[kind]
    source = open_source([str(one) for one in path] if isinstance(path, list) else str(path), **options)

    def read(one, first, count):
        return [(item.name, item.label, item.load().tobytes()) for item in one.slice(first, count)]

    read(source, 3, 2)  # what is open then stays behind
    sent = pickle.loads(pickle.dumps(source))
    assert (len(sent), sent.name, sent.labels_from) == (len(source), source.name, source.labels_from)
    for first, count in ((0, 3), (11, 5), (len(source) - 70, 1)) if kind != "damaged" else ((0, 3), (11, 5)):
        if first >= 0:
            assert read(sent, first, count) == read(source, first, count)
    watch = Watch()
    begun = []
    watch.on_begin = begun.append
    over = watch.over(sent)
    assert read(over.slice(2, 9), 1, 4) == read(source, 3, 4)
    assert (watch.images, begun) == (4, [item.name for item in source.slice(3, 4)])
    assert (len(over), over.labels_from, over.class_names) == (len(source), source.labels_from, source.class_names)


@pytest.mark.parametrize("make", [GridMeans, AllOutputs, TwoGrids, lambda: InceptionV3(64)], ids=str)
def test_the_work_of_every_network_gives_equal_parts_elsewhere(weights, pictures, make):
    source, network = open_source(str(pictures[0]), num=8), make()
    names = ["fid", "kid", "prdc"]
    metrics = make_metrics(names)
    plan = plan_of({"real": source}, decisions({}, {}), {"real": Sizing(5)}, None)
    work = Work(source, network, metrics, {"on_error": "skip"})
    sent = pickle.loads(pickle.dumps(work))
    for task in plan.tasks:
        assert sent(task).digest == work(task).digest


def test_a_watched_source_says_of_itself_what_the_source_says(pictures):
    source = open_source(str(pictures[0]), num=8)
    over = Watch().over(source)
    assert [item.name for item in over] == [item.name for item in source]
    assert [item.header() for item in over] == [item.header() for item in source]
    assert list(over.files()) == list(source.files())
    assert list(over.files_of(2, 5)) == list(source.files_of(2, 5)) != []
    assert over.state_of(2, 5) == source.state_of(2, 5)


def test_what_changes_while_it_is_watched_is_noticed(pictures):
    source = open_source(str(pictures[0]))
    plan = plan_of({"real": source}, decisions({}, {}), {"real": Sizing(10)}, None)
    Path(pictures[0], "003.png").write_bytes(Path(pictures[0], "004.png").read_bytes())
    with pytest.raises(ValueError, match="the files of images 0 to 9 are others than when the plan was made"):
        run_task(plan.tasks[0], Watch().over(source), GridMeans(), make_metrics(["fid"]))


def test_the_recipes_have_commands_that_fastfid_takes():
    """The job of SLURM is a shell script, that of KubeRay has the fields of the RayJob."""
    folder = Path(__file__).resolve().parents[1] / "examples" / "scale"
    script = folder / "ray.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text().replace("\\\n", " ")
    job = yaml.safe_load((folder / "ray-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    pods = [job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        assert container["volumeMounts"] == [{"name": "data", "mountPath": "/data"}]
        assert pod["template"]["spec"]["volumes"][0]["name"] == "data"
    for command in (text.partition("python -m fastfid ")[2], job["spec"]["entrypoint"].partition("-m fastfid ")[2]):
        args = parser_of("").parse_args(shlex.split(command))
        assert (args.engine, args.ray_address, args.device) == ("ray", "auto", "cuda")
        assert args.run_dir is not None
