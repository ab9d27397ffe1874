"""Whether torchrun, srun or another launcher has started this process as one of several."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Launch", "launched"]

# The steps of a SLURM job that run a shell, which is one process: extern, batch, interactive.
_STEPS_OF_SHELLS = {"4294967292", "4294967291", "4294967290"}
# Ports of the ranks of a SLURM step, where MASTER_PORT is not set: below those that Linux gives to clients.
_FIRST_PORT, _PORTS = 10_000, 20_000


@dataclass(frozen=True)
class Launch:
    """How this process was started beside others.

    Attributes
    ----------
    rank, size : int
        Which of how many processes this is.
    address : str
    port : int
        Where the ranks find each other.
    hosts_store : bool
        Whether this process opens the port. torchrun's agent does so for its ranks.
    space : str
        What keeps this launch apart from others at the port.
    restarts : int
        How often the launcher has started the ranks again.
    """

    rank: int
    size: int
    address: str
    port: int
    hosts_store: bool
    space: str
    restarts: int = 0


def launched(environment: Mapping[str, str] | None = None) -> Launch | None:
    """Return how this process was started beside others; None: it is the only one.

    Raises
    ------
    ValueError
        A variable of the launcher is no integer.
    """
    given = os.environ if environment is None else environment
    if all(given.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return _of_torch(given)
    if given.get("SLURM_PROCID") and not _is_shell(given):
        return _of_slurm(given)
    return None


def _of_torch(given: Mapping[str, str]) -> Launch | None:
    rank, size, restarts = (_integer(given, name) for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"))
    if size < 2:
        return None
    return Launch(
        rank,
        size,
        given["MASTER_ADDR"],
        _integer(given, "MASTER_PORT"),
        rank == 0 and given.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        f"fastfid/{given.get('TORCHELASTIC_RUN_ID', '')}/{restarts}",
        restarts,
    )


def _of_slurm(given: Mapping[str, str]) -> Launch | None:
    """Return the launch of a step of a SLURM job. Outside a step, as in a batch script, there is one process."""
    size = _integer(given, "SLURM_STEP_NUM_TASKS")
    if size < 2:
        return None
    job, step = _integer(given, "SLURM_JOB_ID"), _integer(given, "SLURM_STEP_ID")
    nodes = given.get("SLURM_STEP_NODELIST", "") if given.get("SLURM_STEP_NUM_NODES") != "1" else ""
    rank = _integer(given, "SLURM_PROCID")
    return Launch(
        rank,
        size,
        given.get("MASTER_ADDR") or first_host(nodes),
        _integer(given, "MASTER_PORT") or _FIRST_PORT + (7 * job + step) % _PORTS,
        rank == 0,
        f"fastfid/{job}.{step}/{given.get('SLURM_RESTART_COUNT', '')}",
        _integer(given, "SLURM_RESTART_COUNT"),
    )


def _is_shell(given: Mapping[str, str]) -> bool:
    """Whether the process was started from a shell of a SLURM job, by a person or by a batch script."""
    return given.get("SLURM_STEP_ID", "") in _STEPS_OF_SHELLS or (sys.stdin is not None and sys.stdin.isatty())


def first_host(nodes: str) -> str:
    """Return the first host of SLURM's list, such as ``node[03-05,7],other``; 127.0.0.1 if the list is empty."""
    found = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", found[0]) if found else "127.0.0.1"


def _integer(given: Mapping[str, str], name: str) -> int:
    """Return the value of a variable; 0 where it is not set."""
    value = given.get(name) or "0"
    if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
        raise ValueError(f"{name}: expected an integer, got {value!r}; unset it where no launcher has started fastfid")
    return int(value)
