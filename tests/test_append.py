"""`--append`: one line a run, whole or not at all, whoever else writes, whatever ends the run."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastfid import Statistics, _files
from fastfid._files import append_line, check_appendable
from fastfid.cli import main


@pytest.fixture
def two_files(tmp_path):
    rng = np.random.default_rng(0)
    sides = [rng.standard_normal((50, 8)) + shift for shift in (0.0, 1.0)]
    return [
        str(Statistics(x.mean(0), np.cov(x.T), 50, {"protocol": "none"}).save(tmp_path / f"{i}.npz"))
        for i, x in enumerate(sides)
    ]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_a_run(two_files, tmp_path, capsys):
    target = tmp_path / "runs.jsonl"
    assert main([*two_files, "--append", str(target)]) == 0
    assert capsys.readouterr().out.startswith("FID:  ")
    assert main([*two_files, "--json", "--append", str(target)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert target.read_bytes().count(b"\n") == 2
    assert lines(target)[1] == printed
    assert [record["command"][-1] for record in lines(target)] == [str(target)] * 2


def write_lines(path, who, count):
    for i in range(count):
        append_line(path, json.dumps([who, i, "x" * (5000 * (i % 3))]))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    target = tmp_path / "runs.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_lines, args=(target, who, 50)) for who in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = [(who, i) for who, i, _ in lines(target)]
    assert sorted(found) == [(who, i) for who in range(4) for i in range(50)]
    for who in range(4):
        assert [i for one, i in found if one == who] == list(range(50))


def test_who_holds_the_file_is_waited_for(tmp_path):
    target = tmp_path / "runs.jsonl"
    target.write_text("")
    with open(target) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = multiprocessing.get_context("spawn").Process(target=write_lines, args=(target, 0, 1))
        process.start()
        process.join(1.5)
        assert process.is_alive()
        assert target.read_text() == ""
    process.join(60)
    assert lines(target) == [[0, 0, ""]]


@pytest.mark.parametrize(("before", "after"), [("", "[1]\n"), ("[0]\n", "[0]\n[1]\n"), ('{"cut', '{"cut\n[1]\n')])
def test_a_line_that_was_cut_short_is_left_alone(tmp_path, before, after):
    target = tmp_path / "runs.jsonl"
    target.write_text(before)
    append_line(target, "[1]")
    assert target.read_text() == after


def refused(capsys, two_files, target):
    """The sentence with which the run ends before anything is read."""
    assert main([*two_files, "--append", str(target)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_what_cannot_be_appended_to_is_said_before_the_run(two_files, tmp_path, capsys, monkeypatch):
    def reached(*args, **options):
        raise AssertionError

    monkeypatch.setattr("fastfid.evaluation.evaluate.evaluate", reached)
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert f"error: {folder}: Is a directory" in refused(capsys, two_files, folder)
    assert "there is no folder" in refused(capsys, two_files, tmp_path / "no" / "runs.jsonl")
    assert "pipe: is not a regular file" in refused(capsys, two_files, tmp_path / "pipe")
    assert "/dev/null: is not a regular file" in refused(capsys, two_files, "/dev/null")
    assert "--append: the file has no name" in refused(capsys, two_files, "")
    assert "1.npz: --append would write into what is compared" in refused(capsys, two_files, two_files[1])

    def read_only(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("fastfid._files.tempfile.mkstemp", read_only)
    assert "runs.jsonl: Read-only file system" in refused(capsys, two_files, tmp_path / "runs.jsonl")
    (tmp_path / "runs.jsonl").write_text("")
    monkeypatch.setattr("fastfid._files.fcntl.flock", read_only)
    assert "runs.jsonl: Read-only file system" in refused(capsys, two_files, tmp_path / "runs.jsonl")


def test_a_check_leaves_nothing_behind(tmp_path):
    check_appendable(tmp_path / "runs.jsonl")
    os.symlink(tmp_path / "elsewhere.jsonl", tmp_path / "link")
    check_appendable(tmp_path / "link")
    assert os.listdir(tmp_path) == ["link"]
    append_line(tmp_path / "link", "[1]")
    assert lines(tmp_path / "elsewhere.jsonl") == [[1]]


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))  # the system takes 300 bytes of a file, as a disk that gets full
from fastfid.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("length", [0, 100, 300])
def test_a_full_disk_costs_no_result_and_leaves_no_half_line(two_files, tmp_path, length):
    target = tmp_path / "runs.jsonl"
    before = "x" * (length - 1) + "\n" if length else ""
    target.write_text(before)
    command = [sys.executable, "-c", FULL, *two_files, "--append", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("FID:  ")
    assert done.stderr.startswith(f"fastfid: error: {target}: ")
    assert done.stderr.count("\n") == 1
    assert target.read_text() == before


def test_a_file_that_cannot_be_written_at_the_end_costs_no_result(two_files, tmp_path, capsys, monkeypatch):
    def full(path, line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(_files, "append_line", full)
    target = str(tmp_path / "runs.jsonl")
    assert main([*two_files, "--quiet", "--append", target]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("FID:  ")
    assert err == f"fastfid: error: {target}: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "| true"])
def test_nobody_on_stdout_costs_no_line(two_files, tmp_path, closed):
    target = tmp_path / "runs.jsonl"
    argv = [sys.executable, "-m", "fastfid", *two_files, "--json", "--append", str(target)]
    subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *argv], check=False)
    assert lines(target)[0]["schema"] == 2


WAITING = """
import os, sys, time
from fastfid import _files
def slowly(descriptor):
    print("written", flush=True)
    time.sleep(60)
_files.os.fsync = slowly
from fastfid.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing_half_written(two_files, tmp_path, number, code):
    target = tmp_path / "runs.jsonl"
    target.write_text("[0]\n")
    command = [sys.executable, "-c", WAITING, *two_files, "--append", str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert target.read_text() == "[0]\n"


HELD = """
import fcntl, sys
from fastfid import _files
def announced(descriptor, operation, lock=fcntl.flock):
    print("waiting", flush=True)
    lock(descriptor, operation)
_files.fcntl.flock = announced
_files.check_appendable = lambda path: None
from fastfid.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_an_interrupt_while_another_process_holds_the_file(two_files, tmp_path):
    target = tmp_path / "runs.jsonl"
    target.write_text("[0]\n")
    with open(target) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = [sys.executable, "-c", HELD, *two_files, "--append", str(target)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "waiting\n"
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert target.read_text() == "[0]\n"


def test_a_write_that_stops_in_the_middle_is_taken_back(tmp_path, monkeypatch):
    target = tmp_path / "runs.jsonl"
    target.write_text("[0]\n")
    whole = os.write
    monkeypatch.setattr(_files.os, "write", lambda descriptor, data: whole(descriptor, data[:2]))
    with pytest.raises(OSError, match=rf"No space left on device: '{target}'"):
        append_line(target, "[1, 2, 3]")
    assert target.read_text() == "[0]\n"


def test_a_loop_of_links_is_found_before_the_work(tmp_path):
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    with pytest.raises(OSError, match="loop") as error:
        check_appendable(tmp_path / "loop")
    assert error.value.errno == errno.ELOOP
    os.symlink(tmp_path / "later.jsonl", tmp_path / "link")
    check_appendable(tmp_path / "link")
    assert not (tmp_path / "later.jsonl").exists()
