"""Runs one command and writes its wall time and peak memory as JSON: ``spawn.py REPORT CORES COMMAND [ARGUMENT ...]``.

The command is bound to the first CORES of the cores allowed to this process.

Why a process in between: Linux carries the peak of the process that forks over `exec` into the child's `ru_maxrss`, so
a command started straight from a large benchmark process would report the benchmark's memory. This process is small.
Its own start is not in the time, for it takes the time itself.
"""

import json
import os
import sys
import time


def main() -> int:
    """Run the command; its standard streams are ours. Return its exit code (128 + signal where it was killed)."""
    cores, command = int(sys.argv[2]), sys.argv[3:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error}", file=sys.stderr)
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    with open(sys.argv[1], "w", encoding="utf-8") as report:
        json.dump(
            {
                "seconds": seconds,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                # The largest single process: the command itself or a child that it waited for.
                "peak_mib": usage.ru_maxrss / 1024,
            },
            report,
        )
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
