"""The command ``completion``: a script that completes commands and options in bash, and in zsh with bashcompinit."""

import argparse
from collections.abc import Sequence

from fastfid.cli.commands import COMMANDS, parser_of
from fastfid.cli.parser import Parser, one_of

__all__ = ["parser", "run"]

_TEMPLATE = """\
_fastfid() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD - 1]}}" words=""
  case "${{COMP_WORDS[1]}} $before" in
{choices}
  esac
  if [[ -z "$words" && "$word" == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{options}
    esac
  elif [[ -z "$words" && $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word") $(compgen -f -- "$word"))
    return
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -o bashdefault -F _fastfid fastfid
"""


def parser() -> Parser:
    """Return the parser of ``fastfid completion``."""
    made = Parser(
        prog="fastfid completion",
        description='Print a script that completes commands and options: eval "$(fastfid completion bash)".',
    )
    made.add_argument("shell", type=one_of("bash", "zsh"), metavar="SHELL", help="bash or zsh")
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid completion`` with these words."""
    print(_script(parser().parse_args(argv).shell), end="")
    return 0


def _script(shell: str) -> str:
    """Return the script for `shell`, "bash" or "zsh"."""
    options, choices = [], []
    for command, of_command in [*((name, parser_of(name)) for name in COMMANDS), ("*", parser_of(""))]:
        options.append(f'      {command}) words="{" ".join(_names(of_command))}" ;;')
        for action in of_command._actions:
            values = getattr(action.type, "choices", None)
            if values and action.option_strings:
                choices.append(f'    {_quoted(command)}" {action.option_strings[-1]}") words="{" ".join(values)}" ;;')
            elif values:
                choices.append(f'    "{command} {command}") words="{" ".join(values)}" ;;')
    text = _TEMPLATE.format(options="\n".join(options), choices="\n".join(choices), commands=" ".join(COMMANDS))
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if shell == "zsh" else text


def _quoted(command: str) -> str:
    return "*" if command == "*" else f'"{command}"'


def _names(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in parser._actions for name in action.option_strings]
