"""The tools for writing a stage: timing in turn, comparison of answers, memory, targets.

A stage yields one `Result` per case. `compare` makes a result from callables of this process, `compare_commands` from
whole commands. README.md shows a stage.
"""

import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import thread_environment
from benchmarks.report import duration, number

# Pause before a call is timed. The threads of NumPy's and SciPy's OpenBLAS spin for 25 to 40 ms after their last task
# and would take a core from the next contender.
SETTLE_S = 0.05

__all__ = [
    "Agreement",
    "Command",
    "Config",
    "Measured",
    "Result",
    "Target",
    "at_most",
    "busy",
    "compare",
    "compare_commands",
    "faster",
    "keeps_up",
    "probe",
    "run_command",
]

Answer = Any  # float or array-like; every contender of a case gives the same kind


@dataclass(frozen=True)
class Config:
    """The options of the command line, which every stage receives."""

    full: bool = False  # --full: about an hour in total; otherwise --quick, 5 minutes
    threads: int = 1  # BLAS, torch and fastfid threads; the process is bound to as many cores
    cache: Path = Path("benchmarks/.cache")  # test images, weights, resumable work: may be deleted at any time
    python: str = sys.executable  # the interpreter that has fastfid and the peers
    data: Path | None = None  # --data, for stages that need files that cannot be generated
    done: frozenset[str] = frozenset()  # completed cases of a stage that resumes

    def pick(self, quick: Any, full: Any) -> Any:
        """Return the value for the mode of this run."""
        return full if self.full else quick


@dataclass
class Measured:
    """One contender in one case."""

    name: str
    seconds: list[float]  # every timed run, in order; empty if only memory was measured
    answer: float | None = None  # the answer, if it is one number
    rate: float | None = None  # units per second at the median
    peak_mib: float | None = None
    cpu_seconds: float | None = None  # median CPU time of a whole command over all cores
    parts: dict[str, float] = field(default_factory=dict)  # seconds of its parts, for stacked bars
    note: str = ""

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds) if self.seconds else math.nan


@dataclass
class Target:
    """A requirement of a case, and the measured value."""

    text: str
    measured: float
    limit: float
    met: bool


Check = Callable[[Mapping[str, Measured]], Target]


def faster(name: str, *, than: str, times: float) -> Check:
    """Target: `name` is at least `times` as fast as `than`, by medians."""

    def check(measured: Mapping[str, Measured]) -> Target:
        ratio = measured[than].median / measured[name].median
        return Target(f"at least {times:g} x as fast as {than}", ratio, times, ratio >= times)

    return check


def keeps_up(name: str, *, with_: str, share: float) -> Check:
    """Target: `name` runs at `share` of the speed of `with_` at least, by the median of the rounds' ratios.

    Both run in each round, shortly after one another, so changes of the machine's speed within minutes cancel out. In a
    ratio of medians they do not cancel out, which matters if the target is within a few per cent.
    """

    def check(measured: Mapping[str, Measured]) -> Target:
        rounds = zip(measured[with_].seconds, measured[name].seconds, strict=False)  # one may have run out of budget
        ratio = statistics.median(theirs / ours for theirs, ours in rounds)
        return Target(f"at least {share:g} of the speed of {with_}, round by round", ratio, share, ratio >= share)

    return check


def costs(name: str, *, times: float, of: str) -> Check:
    """Target: `name` takes at most `times` the time of `of`, by the median of the rounds' ratios; see `keeps_up`."""

    def check(measured: Mapping[str, Measured]) -> Target:
        rounds = zip(measured[name].seconds, measured[of].seconds, strict=False)  # one may have run out of budget
        ratio = statistics.median(ours / theirs for ours, theirs in rounds)
        return Target(f"at most {times:g} x the time of {of}, round by round", ratio, times, ratio <= times)

    return check


def at_most(name: str, quantity: str, limit: float) -> Check:
    """Target: `quantity` of `name` ("median" in seconds or "peak_mib") is at most `limit`."""
    words = {"median": f"at most {limit:g} s", "peak_mib": f"peak memory at most {limit:g} MiB"}

    def check(measured: Mapping[str, Measured]) -> Target:
        value = getattr(measured[name], quantity)
        return Target(words[quantity], value, limit, value <= limit)

    return check


@dataclass(frozen=True)
class Agreement:
    """How closely the answers must agree: |answer - reference| <= absolute + relative * |reference|."""

    relative: float = 0.0
    absolute: float = 0.0
    reference: str | None = None  # the contender whose answer is the reference; None: the case's `against`
    why: str = ""

    def check(self, case: str, reference: Answer, name: str, answer: Answer) -> float:
        """Return the largest difference. Raises AssertionError if a difference exceeds the tolerance."""
        truth, got = np.asarray(reference, np.float64), np.asarray(answer, np.float64)
        if truth.shape != got.shape:
            raise AssertionError(f"{case}: {name} answers with shape {got.shape}, expected {truth.shape}")
        difference = np.abs(got - truth)
        within = difference <= self.absolute + self.relative * np.abs(truth)
        if not np.all(within):  # a NaN is never within the tolerance
            worst = np.max(np.where(within, 0, difference)) if truth.ndim else difference
            tolerance = f"{self.relative:g} relative + {self.absolute:g} absolute"
            answers = f"; answers {got:.17g}, expected {truth:.17g}" if not truth.ndim else ""
            raise AssertionError(f"{case}: {name} differs by {worst:.3g}; tolerance {tolerance}{answers}")
        return float(np.max(difference, initial=0.0))

    def as_dict(self, reference: str, difference: Mapping[str, float]) -> dict[str, Any]:
        """Return the entry of a result: the tolerance, its reason, and the largest difference of each contender."""
        return {**asdict(self), "reference": reference, "difference": dict(difference)}


@dataclass
class Result:
    """The measurements of all contenders in one case."""

    case: str
    measured: list[Measured]
    against: str  # the peer in the denominator of the ratios
    threads: int
    unit: str = ""  # of `rate`, such as "images/s"
    agreement: dict[str, Any] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)  # further values for plots and readers (n, d, bounds, ...)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of the JSON file, with median, spread and ratio."""
        row = asdict(self)
        base = next((m.median for m in self.measured if m.name == self.against), math.nan)
        for entry, measured in zip(row["measured"], self.measured, strict=True):
            if measured.seconds:
                entry["median"] = measured.median
                entry["low"], entry["high"] = min(measured.seconds), max(measured.seconds)
                entry["ratio"] = base / measured.median if math.isfinite(base) else None
        return row


def _timed_rounds(
    names: Sequence[str],
    once: Callable[[str], tuple[float, Answer]],
    judge: Callable[[str, Answer], None],
    repeats: int,
    warm_up: int,
    budget_s: float,
) -> dict[str, list[float]]:
    """Run the contenders in turn. The order is rotated every round, so that a slow minute affects all of them.

    A contender that has used its budget does not run in later rounds. If its warm-up took more than half of the budget,
    the warm-up is its measurement.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    spent = dict.fromkeys(names, 0.0)
    for turn in range(-warm_up, repeats):
        shift = turn % len(names)
        for name in [*names[shift:], *names[:shift]]:
            if seconds[name] and spent[name] + max(seconds[name]) > budget_s:
                continue
            took, answer = once(name)
            spent[name] += took
            judge(name, answer)
            if turn >= 0 or took > budget_s / 2:
                seconds[name].append(took)
    return seconds


def _judge(case: str, reference: str, agree: Agreement | None) -> tuple[Callable[[str, Answer], None], dict[str, Any]]:
    """Return a function that checks every answer, and the dict that collects its findings."""
    answers: dict[str, Answer] = {}
    difference: dict[str, float] = {}

    def judge(name: str, answer: Answer) -> None:
        if agree is None:
            return
        answers.setdefault(name, answer)
        if reference in answers:
            waiting = {name: answer} if name != reference else {**answers, reference: answer}
            for other, given in waiting.items():
                found = agree.check(case, answers[reference], other, given)
                difference[other] = max(found, difference.get(other, 0.0))

    return judge, {"answers": answers, "difference": difference}


def _finish(
    case: str,
    measured: list[Measured],
    *,
    against: str,
    threads: int,
    unit: str,
    agree: Agreement | None,
    found: dict[str, Any],
    targets: Sequence[Check],
    facts: Mapping[str, Any] | None,
) -> Result:
    for entry in measured:
        answer = found["answers"].get(entry.name)
        if answer is not None and np.ndim(answer) == 0:
            entry.answer = float(answer)
    agreement = agree.as_dict(agree.reference or against, found["difference"]) if agree is not None else {}
    by_name = {entry.name: entry for entry in measured}
    result = Result(case, measured, against, threads, unit, agreement, [t(by_name) for t in targets], dict(facts or {}))
    show(result)
    return result


def compare(
    config: Config,
    case: str,
    contenders: Mapping[str, Callable[[], Answer]],
    *,
    against: str,
    agree: Agreement | None,
    repeats: int | None = None,
    warm_up: int = 1,
    budget_s: float | None = None,
    count: float | None = None,
    unit: str = "",
    targets: Sequence[Check] = (),
    facts: Mapping[str, Any] | None = None,
) -> Result:
    """Time callables of this process in turn and check that their answers agree.

    Parameters
    ----------
    config : Config
        The run's configuration.
    case : str
        What is computed, for the table: "d = 2048, full rank".
    contenders : mapping of str to callable
        Each takes no argument and returns its answer (a number or an array). fastfid's contender is called "fastfid" (a
        variant: "fastfid newton-schulz"). Prepare inputs outside of the callables.
    against : str
        The contender in the denominator of the ratios.
    agree : Agreement or None
        Tolerance of the answers. None only if a contender has no comparable answer (a GEMM as the limit).
    repeats, warm_up : int
        Number of timed rounds (default 3 quick, 7 full) and of rounds before them.
    budget_s : float
        Total seconds that one contender may take (default 20 quick, 60 full).
    count, unit : float, str
        Work of one call, for the rate: ``count=192, unit="images/s"``.
    targets : sequence
        Targets made by `faster`, `at_most` or a similar function.
    facts : mapping
        Further values for the JSON file: ``{"n": 5000, "d": 2048}``. Plots select results by these values.

    Returns
    -------
    Result

    Raises
    ------
    AssertionError
        An answer differs from the reference's by more than the tolerance.
    """

    calls: dict[str, int] = {}

    def once(name: str) -> tuple[float, Answer]:
        call, number_of_calls = contenders[name], calls.get(name, 1)
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        for _ in range(number_of_calls):
            answer = call()
        took = (time.perf_counter() - start) / number_of_calls
        # Calls of microseconds are timed in bursts of about 10 ms. The warm-up gives the number of calls in a burst.
        calls.setdefault(name, max(1, min(10_000, round(0.01 / max(took, 1e-7)))))
        return took, answer

    reference = (agree.reference if agree else None) or against
    judge, found = _judge(case, reference, agree)
    seconds = _timed_rounds(
        list(contenders),
        once,
        judge,
        repeats or config.pick(3, 7),
        warm_up,
        budget_s or config.pick(20.0, 60.0),
    )
    measured = [
        Measured(name, taken, rate=count / statistics.median(taken) if count else None)
        for name, taken in seconds.items()
    ]
    return _finish(
        case,
        measured,
        against=against,
        threads=config.threads,
        unit=unit,
        agree=agree,
        found=found,
        targets=targets,
        facts=facts,
    )


@dataclass
class Command:
    """A whole command: its arguments, and a function that reads its answer.

    `answer` takes the finished process (stdout, stderr as text) and returns the number, or None if there is none.
    """

    argv: Sequence[str]
    answer: Callable[[subprocess.CompletedProcess[str]], Answer] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)  # in addition to the caller's
    # Function that returns the seconds of its parts from its output. The rest of the total time is its start.
    parts: Callable[[subprocess.CompletedProcess[str]], dict[str, float]] | None = None


@dataclass
class Finished:
    """The measurements of one run of a command."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    process: subprocess.CompletedProcess[str]


def run_command(command: Command, threads: int, timeout_s: float = 3600.0) -> Finished:
    """Run a command to its end on `threads` cores. Raises RuntimeError with its stderr if it fails.

    Peak memory is that of the largest single process (the command, or a child it waited for). For a tool with worker
    processes, this is the main process, so the comparison favours such a tool.
    """
    environment = {**os.environ, **thread_environment(threads), **command.environment}
    spawn = Path(__file__).with_name("spawn.py")
    with tempfile.TemporaryDirectory(prefix="fastfid-bench-") as folder:
        report = Path(folder) / "report.json"
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(spawn), str(report), str(threads), *command.argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode:
            raise RuntimeError(f"{' '.join(command.argv)}: exit {process.returncode}\n{stderr[-2000:]}")
        found = json.loads(report.read_text(encoding="utf-8"))
    done = subprocess.CompletedProcess(list(command.argv), 0, stdout, stderr)
    return Finished(found["seconds"], found["cpu_seconds"], found["peak_mib"], done)


def compare_commands(
    config: Config,
    case: str,
    contenders: Mapping[str, Command],
    *,
    against: str,
    agree: Agreement | None,
    repeats: int | None = None,
    warm_up: int = 1,
    budget_s: float | None = None,
    threads: int | None = None,
    count: float | None = None,
    unit: str = "",
    targets: Sequence[Check] = (),
    facts: Mapping[str, Any] | None = None,
    clocked: Mapping[str, Command] | None = None,
) -> Result:
    """Like `compare`, for whole commands: from the start of the process to its end, with its peak memory.

    `clocked` gives, for a contender that does not report the times of its parts, a command that does the same work and
    reports them. This command runs once, after the others, and only the times of the parts are used.
    """
    threads = threads or config.threads
    peak: dict[str, float] = {}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    parts: dict[str, dict[str, float]] = {}

    def run_one(name: str, command: Command) -> tuple[Finished, Answer]:
        done = run_command(command, threads)
        if command.parts is not None:
            found_parts = command.parts(done.process)
            parts[name] = {"start and imports": done.seconds - sum(found_parts.values()), **found_parts}
        return done, command.answer(done.process) if command.answer is not None else None

    def once(name: str) -> tuple[float, Answer]:
        done, answer = run_one(name, contenders[name])
        peak[name] = max(done.peak_mib, peak.get(name, 0.0))
        cpu[name].append(done.cpu_seconds)
        return done.seconds, answer

    reference = (agree.reference if agree else None) or against
    judge, found = _judge(case, reference, agree)
    seconds = _timed_rounds(
        list(contenders),
        once,
        judge,
        repeats or config.pick(2, 5),
        warm_up,
        budget_s or config.pick(60.0, 600.0),
    )
    for name, command in (clocked or {}).items():
        judge(name, run_one(name, command)[1])
    measured = [
        Measured(
            name,
            taken,
            rate=count / statistics.median(taken) if count else None,
            peak_mib=peak[name],
            cpu_seconds=statistics.median(cpu[name]),
            parts=parts.get(name, {}),
        )
        for name, taken in seconds.items()
    ]
    return _finish(
        case,
        measured,
        against=against,
        threads=threads,
        unit=unit,
        agree=agree,
        found=found,
        targets=targets,
        facts=facts,
    )


@dataclass
class Probed:
    """The measurements of a function of a stage in a separate process."""

    answer: Any
    seconds: float
    before_mib: float  # peak memory when the function was called: imports and arguments
    peak_mib: float

    @property
    def grew_mib(self) -> float:
        """Growth of the peak while the function ran."""
        return self.peak_mib - self.before_mib


_PROBE = """
import importlib, json, resource, sys, time
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
module, function, arguments = json.loads(sys.argv[1])
call = getattr(importlib.import_module(module), function)
before, start = peak(), time.perf_counter()
answer = call(**arguments)
print(json.dumps({"answer": answer, "seconds": time.perf_counter() - start, "before_mib": before, "peak_mib": peak()}))
"""


def probe(config: Config, function: Callable[..., Any], **arguments: Any) -> Probed:
    """Call a top-level function of a stage file in a separate process and measure its peak memory.

    Arguments and answer are passed as JSON. The memory of the stage file's top-level imports counts as "before".
    """
    call = json.dumps([function.__module__, function.__name__, arguments])
    done = run_command(Command([config.python, "-c", _PROBE, call]), config.threads)
    return Probed(**json.loads(done.process.stdout.splitlines()[-1]))


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep `processes` processes spinning while the block runs, which simulates a shared machine."""
    spinners = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(processes)]
    try:
        time.sleep(0.2)  # wait until the processes run
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def show(result: Result) -> None:
    """Print a case when it is complete."""
    row = result.as_dict()
    print(f"  {result.case}  [{result.threads} thread{'s' if result.threads > 1 else ''}]")
    for entry in row["measured"]:
        text = f"    {entry['name']:<34}"
        if entry["seconds"]:
            text += f" {duration(entry['median']):>8}  ({duration(entry['low'])} to {duration(entry['high'])})"
            if entry["ratio"] is not None:
                text += f"  {number(entry['ratio']):>6} x"
        if entry["rate"] is not None:
            text += f"  {number(entry['rate'])} {result.unit}"
        if entry["cpu_seconds"] is not None:
            text += f"  {duration(entry['cpu_seconds'])} of CPU"
        if entry["peak_mib"] is not None:
            text += f"  peak {number(entry['peak_mib'])} MiB"
        if entry["note"]:
            text += f"  {entry['note']}"
        print(text)
    for target in result.targets:
        met = "met" if target.met else "NOT MET"
        print(f"    target: {target.text}: {number(target.measured)}, {met}")
    sys.stdout.flush()
