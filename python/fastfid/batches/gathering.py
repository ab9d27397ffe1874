"""Collective exchange of states among the processes of torch.distributed. It imports torch where the program has."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gatherable", "gathered"]

_CHUNK = 1 << 26  # bytes that are sent at once, which a GPU must have room for


class Gatherable(Protocol):
    """What many processes have a part of."""

    def _shared_state(self) -> dict[str, Any]:
        """Return mappings, arrays and plain values: all that the others need."""

    def _like_all(self, headers: Sequence[Mapping[str, Any]]) -> Self:
        """Return an empty object for the states of all processes, whose arrays are described in `headers`."""

    def _take_over(self, state: Mapping[str, Any]) -> None:
        """Add a state."""


G = TypeVar("G", bound=Gatherable)


def gathered(part: G, dst: int | None, group: Any) -> G | None:
    """Return an object with the parts of all processes; see :meth:`GrowingSets.gather`.

    What only one process knows, an error too, reaches all before any of them raises: none waits for another.
    """
    peers = _find_peers(group)
    if peers is None:
        state = part._shared_state()
        total = part._like_all([_described(state)])
        total._take_over(state)
        return total
    if dst is not None and not 0 <= dst < peers.size:
        raise ValueError(f"dst: expected a rank from 0 to {peers.size - 1}, got {dst}")
    own: dict[str, Any] = {}
    failure: Exception | None = None
    try:
        own = part._shared_state()
    except Exception as error:
        failure = error
    peers.raise_any(failure)
    headers = peers.all(_described(own))
    total = part._like_all(headers)
    for state in peers.states(own, headers, dst):
        if state is not None and failure is None:
            try:
                total._take_over(state)
            except Exception as error:  # too little memory, say, while others have yet to send
                failure = error
    peers.raise_any(failure)
    return total if dst in (None, peers.rank) else None


@dataclass(frozen=True)
class _Described:
    """Stands for an array in what is sent before the array."""

    dtype: str
    shape: tuple[int, ...]


def _described(state: Any) -> Any:
    """Return a state with descriptions in the place of its arrays."""
    if isinstance(state, Mapping):
        return {name: _described(value) for name, value in state.items()}
    return _Described(state.dtype.str, state.shape) if isinstance(state, np.ndarray) else state


def _arrays_of(state: Any) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a state, in its order."""
    if isinstance(state, Mapping):
        for value in state.values():
            yield from _arrays_of(value)
    elif isinstance(state, np.ndarray):
        yield state


def _find_peers(group: Any) -> "_Peers | None":
    """Return the processes of a group, by default of all; None: the program has one process.

    Raises
    ------
    ValueError
        This process is not in the group, or torchrun has started several, which have made no process group.
    """
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
            raise ValueError(
                f"gather: WORLD_SIZE is {os.environ['WORLD_SIZE']}, and there is no process group: call"
                " torch.distributed.init_process_group before, or unset WORLD_SIZE"
            )
        return None
    if distributed.get_rank(group) < 0:
        raise ValueError("group: this process is not in it")
    return _Peers(torch, group)


class _Peers:
    """The processes of a group of torch.distributed, as one of them sees them.

    Attributes
    ----------
    rank, size : int
        Which of how many this one is in the group.
    """

    def __init__(self, torch: Any, group: Any):
        self._torch = torch
        self._distributed = torch.distributed
        self._group = group
        self.rank: int = self._distributed.get_rank(group)
        self.size: int = self._distributed.get_world_size(group)
        # nccl sends from GPU to GPU; "cpu:gloo,cuda:nccl" sends tensors of the host too.
        sends_from_host = "cpu:" in str(self._distributed.get_backend_config(group))
        self._device = "cpu" if sends_from_host else torch.device("cuda", torch.cuda.current_device())

    def all(self, value: Any) -> list[Any]:
        """Return the values of all processes, in the order of ranks."""
        found: list[Any] = [None] * self.size
        self._distributed.all_gather_object(found, value, group=self._group)
        return found

    def raise_any(self, failure: Exception | None) -> None:
        """Raise `failure`, or RuntimeError if another process has one."""
        whys = self.all(None if failure is None else str(failure) or type(failure).__name__)
        if failure is not None:
            raise failure
        for rank, why in enumerate(whys):
            if why is not None:
                raise RuntimeError(f"gather: rank {rank}: {why}")

    def states(self, mine: Any, descriptions: Sequence[Any], dst: int | None) -> Iterator[Any]:
        """Yield the states of all processes in the order of ranks, on rank `dst` or, if that is None, on all.

        On the other ranks None is yielded for each. All processes must take all states.
        """
        for source, description in enumerate(descriptions):
            is_mine = source == self.rank
            is_wanted = dst is None or dst == self.rank
            state = mine if is_mine else _allocated(description) if is_wanted else None
            if self.size > 1 and source != dst and (is_mine or is_wanted):
                for array in _arrays_of(state):
                    self._send(array, source, dst)
            yield state if is_wanted else None

    def _send(self, array: NDArray[Any], source: int, dst: int | None) -> None:
        """Send an array of rank `source`, or fill it, on any other rank."""
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK]
            tensor = self._torch.from_numpy(part.copy()).to(self._device)
            if dst is None:
                self._distributed.broadcast(tensor, self._global(source), group=self._group)
            elif source == self.rank:
                self._distributed.send(tensor, self._global(dst), group=self._group)
            else:
                self._distributed.recv(tensor, self._global(source), group=self._group)
            if source != self.rank:
                part[...] = tensor.cpu().numpy()

    def _global(self, rank: int) -> int:
        return int(self._distributed.get_process_group_ranks(self._group)[rank])


def _allocated(description: Any) -> Any:
    if isinstance(description, Mapping):
        return {name: _allocated(value) for name, value in description.items()}
    return np.empty(description.shape, description.dtype) if isinstance(description, _Described) else description
