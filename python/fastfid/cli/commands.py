"""The commands: what each does, and which file has its parser and runs it.

The file of a command has two functions: ``parser()`` and ``run(words)``. It is loaded when its command is asked for.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastfid.cli.parser import Parser

__all__ = ["COMMANDS", "parser_of", "run_command"]

# What each command does, in the order of --help.
COMMANDS = {
    "adm": "Inception Score, FID, sFID, precision and recall, as guided-diffusion's evaluator prints them",
    "compare": "which of several sets is closer to a reference, and whether that can be told",
    "report": "an HTML page that shows what the distance of two sets is made of, or how runs went on",
    "stats": "compute the statistics of one source and keep them",
    "inspect": "what a source holds: images, sizes, formats, classes, and what was passed over",
    "plan": "divide an evaluation into tasks for several processes (docs/scale.md)",
    "part": "do the tasks of one process",
    "reduce": "print the result of a plan whose tasks are done",
    "extractors": "known networks beside Inception: a list, and the export of one to an ONNX file",
    "study": "how metrics answer to disturbed images and to the number of images, as figures (docs/paper.md)",
    "weights": "the Inception weights: where they are, fetch them, check them",
    "info": "facts of the build and of this machine",
    "demo": "FID of disturbed photographs, as a table and a plot",
    "completion": "print a script that completes commands and options in bash or zsh",
}


def parser_of(command: str) -> "Parser":
    """Return the parser of a command; "" is the one without a name."""
    made: Parser = _file_of(command).parser()
    return made


def run_command(argv: Sequence[str]) -> int:
    """Run a command line in this process and return the exit code."""
    has_name = bool(argv) and argv[0] in COMMANDS
    code: int = _file_of(argv[0]).run(argv[1:]) if has_name else _file_of("").run(argv)
    return code


def _file_of(command: str) -> Any:
    return importlib.import_module(f"fastfid.cli.{command or 'fid'}")
