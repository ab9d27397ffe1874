"""The base of the command line's parsers: wrong usage in one line with a suggestion, and the types of arguments."""

import argparse
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

from fastfid._checks import DIMS, check_device
from fastfid.cli.commands import COMMANDS
from fastfid.metrics import ALL, METRICS, check_name

__all__ = ["Parser", "at_least", "device", "did_you_mean", "dims", "metrics", "one_of", "unknown_command"]


_WIDTH = 100  # of a description that is one paragraph


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Prints description and epilog unchanged, and each option in as few lines as possible."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32)


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line with a suggestion, and exits with code 2."""

    def __init__(self, *, description: str = "", **options: Any):
        if "\n" not in description:
            description = textwrap.fill(description, _WIDTH)
        # An abbreviation may be another option than the one that was meant: --num of a command that has no --num.
        super().__init__(formatter_class=_Formatter, description=description, allow_abbrev=False, **options)
        self._words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        """Print the error, a suggestion, and a reference to ``--help``."""
        start = "unrecognized arguments: "
        if message.startswith(start) and len(message) > 200:  # the shell has expanded a pattern
            words = message.removeprefix(start).split()
            message = f"{start}{' '.join(words[:3])} ... ({len(words)} words)"
        if message == "the following arguments are required: PATH":
            message = "two PATHs are needed"
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {message}{self._hint(message)} ({self.prog} --help)\n")

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse `args`, the words after the command."""
        self._words = args
        parsed: argparse.Namespace = super().parse_args(args, namespace)
        return parsed

    def _hint(self, message: str) -> str:
        is_command = self.prog != "fastfid"
        first = self.prog.removeprefix("fastfid ") if is_command else (self._words[0] if self._words else "")
        if is_command and os.path.exists(first):
            return f"; if you mean the path, write ./{first}"
        if not is_command and (said := unknown_command(first)):
            return f"; {said}"
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown == message:
            return ""
        if unknown.strip() and unknown.split()[0].partition(":")[0] in METRICS:
            return "; names of metrics have commas between, as --metrics fid,kid"
        if unknown.startswith("-"):
            return did_you_mean(re.split("[ =]", unknown)[0], self._option_string_actions)
        if not is_command and first and not first.startswith("-") and not os.path.exists(first):
            return f"; {first} is neither a path nor one of the commands {', '.join(COMMANDS)}"
        return "; a pattern of several files is one path if it is quoted, such as 'shards/*.tar'"


def unknown_command(word: str) -> str | None:
    """Return a suggestion for a word that is not a path and is similar to a command; else None."""
    if not word or word.startswith("-") or os.path.exists(word) or os.sep in word:
        return None
    meant = did_you_mean(word, COMMANDS)
    return f"there is no path and no command {word}{meant}" if meant else None


def did_you_mean(word: str, known: Any) -> str:
    """Return a question that names the similar word among `known`; empty if there is none."""
    import difflib  # imported here, because loading it takes as long as the rest of --help

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def one_of(*choices: str, meanings: Mapping[str, str] = MappingProxyType({})) -> Callable[[str], str]:
    """Return a function that checks that an argument is one of `choices`.

    Its error suggests the choice that `meanings` has for the word, or a similar one.
    """

    def check(text: str) -> str:
        if text not in choices:
            meant = meanings.get(text.lower())
            hint = f"; did you mean {meant}?" if meant else did_you_mean(text, choices)
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(choices)}; got {text!r}{hint}")
        return text

    check.choices = choices  # type: ignore[attr-defined]  # for the completion script
    return check


def dims(text: str) -> int:
    """Return the number of features of a layer."""
    return int(one_of(*map(str, DIMS))(text))


dims.choices = tuple(map(str, DIMS))  # type: ignore[attr-defined]


def metrics(text: str) -> str | list[str]:
    """Return the names of metrics, with their conventions, or "all"."""
    if text == ALL:
        return text
    names = [name.strip() for name in text.split(",")]
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            hint = "" if name.partition(":")[0] in METRICS else did_you_mean(name.lower(), METRICS)
            raise argparse.ArgumentTypeError(f"{error}{hint}") from None
        if names.count(name) > 1:
            raise argparse.ArgumentTypeError(f"{name} comes twice")
    return names


metrics.choices = (ALL, *METRICS)  # type: ignore[attr-defined]


def device(text: str) -> str:
    """Return the name of a device."""
    try:
        return check_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("device: ")) from None


def at_least(least: int) -> Callable[[str], int]:
    """Return a function that reads an integer, `least` or more."""

    def check(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an integer, got {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {value}")
        return value

    return check
