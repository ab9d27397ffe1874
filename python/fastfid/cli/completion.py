"""The completion script of the command line for bash, and for zsh with bashcompinit."""

import argparse

from fastfid.cli.options import PARSERS
from fastfid.cli.parser import COMMANDS

__all__ = ["script"]

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


def script(shell: str) -> str:
    """Return the script for `shell`, "bash" or "zsh"."""
    options, choices = [], []
    for command, make in [*list(PARSERS.items())[1:], ("*", PARSERS[""])]:
        parser = make()
        options.append(f'      {command}) words="{" ".join(_names(parser))}" ;;')
        for action in parser._actions:
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
