"""Runs one command and writes its wall time and peak memory as JSON: ``spawn.py REPORT CORES COMMAND [ARGUMENT ...]``.

The command is bound to the first CORES of the cores allowed to this process.

This intermediate process is necessary because Linux copies the peak memory of a forking process into the child's
`ru_maxrss`, also across `exec`. A command started directly from a large benchmark process would report the memory of
the benchmark. This process is small. It measures the time itself, so the time does not include its own start.
"""

import json
import os
import sys
import time


def main() -> int:
    """Run the command with this process's standard streams and return its exit code (128 + signal if it was killed)."""
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
