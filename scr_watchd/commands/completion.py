"""`scr-watchd completion`: what bash, zsh or fish completes, made of the commands' own parsers."""

import argparse
import re
from collections.abc import Iterator

from scr_watchd.commands import COMMANDS, options
from scr_watchd.commands.grammar import arguments, flags, parsers, takes_a_path, takes_a_value, text, words

_ABOUT = """\
Print what a shell needs to complete commands, options, their words, and files. The Debian package has
installed it already. These files are for one user:

examples:
  scr-watchd completion bash > ~/.local/share/bash-completion/completions/scr-watchd
  scr-watchd completion fish > ~/.config/fish/completions/scr-watchd.fish
  scr-watchd completion zsh > ~/.zfunc/_scr-watchd      # with fpath=(~/.zfunc $fpath) before compinit
"""


def parser() -> argparse.ArgumentParser:
    made = options.Parser("completion", _ABOUT)
    made.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish")
    return made


def run(arguments: argparse.Namespace) -> int:
    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](), end="")
    return 0


def bash() -> str:
    """A completion for bash; it needs no other file."""
    lines = [
        "# bash completion for scr-watchd; generated",
        "_scr_watchd() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
        "    local command=${COMP_WORDS[1]}",
        "    COMPREPLY=()",
        "    if ((COMP_CWORD == 1)); then",
        f"        COMPREPLY=($(compgen -W '{' '.join(COMMANDS)} --help --version' -- \"$word\"))",
        "        return",
        "    fi",
        "    case $command:$before in",
    ]
    made = parsers()
    for name, parser in made.items():
        for action in flags(parser):
            if takes_a_value(action):
                pattern = "|".join(f"{name}:{flag}" for flag in action.option_strings)
                lines.append(f"        {pattern}) {_bash_value(action)} ;;")
    lines += ["    esac", "    case $command in"]
    for name, parser in made.items():
        own = " ".join(flag for action in flags(parser) for flag in action.option_strings)
        taken = " ".join(word for each in arguments(parser) for word in words(each))
        paths = f"COMPREPLY=($(compgen -W '{taken}' -- \"$word\"))" if taken else ":"
        if any(takes_a_path(each) for each in arguments(parser)):
            paths = f"compopt -o filenames; {_FILENAMES}"
        lines += [
            f"        {name})",
            f"            if [[ $word == -* ]]; then COMPREPLY=($(compgen -W '{own}' -- \"$word\"))",
            f"            else {paths}; fi ;;",
        ]
    lines += ["    esac", "}", "complete -F _scr_watchd scr-watchd", ""]
    return "\n".join(lines)


_FILENAMES = 'mapfile -t COMPREPLY < <(compgen -f -- "$word")'


def _bash_value(action: argparse.Action) -> str:
    if words(action):
        return f"COMPREPLY=($(compgen -W '{' '.join(words(action))}' -- \"$word\")); return"
    if takes_a_path(action):
        return f"compopt -o filenames; {_FILENAMES}; return"
    return "return"


def zsh() -> str:
    """A completion for zsh."""
    lines = ["#compdef scr-watchd", "# generated", "local -a commands=("]
    lines += [f"    {_quoted(f'{name}:{what}')}" for name, what in COMMANDS.items()]
    lines += [
        ")",
        "if ((CURRENT == 2)); then",
        "    _describe command commands",
        "    return",
        "fi",
        "local command=$words[2]",
        "shift words; ((CURRENT--))",
        "case $command in",
    ]
    for name, parser in parsers().items():
        lines.append(f"    {name}) _arguments \\")
        lines += [f"        {_quoted(each)} \\" for each in _zsh_arguments(parser)]
        lines.append("        ;;")
    return "\n".join([*lines, "esac", ""])


def _zsh_arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in flags(parser):
        what = re.sub(r"([\[\]:\\])", r"\\\1", text(action))
        for flag in action.option_strings:
            yield f"{flag}[{what}]" + (f":{_zsh_value(action)}" if takes_a_value(action) else "")
    for action in arguments(parser):
        yield f"{':' if action.nargs == '?' else ''}:{_zsh_value(action)}"


def _zsh_value(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest).replace(":", r"\:")
    if words(action):
        return f"value:({' '.join(words(action))})"
    return f"{name}:{'_files' if takes_a_path(action) else ' '}"


def fish() -> str:
    """A completion for fish."""
    lines = ["# generated", "complete -c scr-watchd -f"]
    for name, what in COMMANDS.items():
        lines.append(f"complete -c scr-watchd -n __fish_use_subcommand -a {name} -d {_quoted(what)}")
    for name, parser in parsers().items():
        condition = f"complete -c scr-watchd -n '__fish_seen_subcommand_from {name}'"
        for action in flags(parser):
            names = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
                for flag in action.option_strings
            )
            value = ""
            if takes_a_value(action):
                value = " -r -F" if takes_a_path(action) else f" -x -a {_quoted(' '.join(words(action)))}"
            lines.append(f"{condition} {names}{value} -d {_quoted(text(action))}")
        for each in arguments(parser):
            if takes_a_path(each):
                lines.append(f"{condition} -F")
            elif words(each):
                lines.append(f"{condition} -a {_quoted(' '.join(words(each)))}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
