"""What real shells offer for a command line of scr-watchd."""

import subprocess
from pathlib import Path

from tests.nginxes import require


def run(*command: object) -> str:
    """What a program prints; fails if it complains or fails."""
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def bash_offers(file: Path, *words: str) -> list[str]:
    """For the last of ``words``, with the completion in ``file``."""
    script = """
        source "$1"; shift
        compopt() { :; }  # it works within an interactive completion only
        COMP_WORDS=(scr-watchd "$@") COMP_CWORD=$#
        _scr_watchd
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    return run("bash", "-euc", script, "bash", file, *words).split()


def fish_offers(file: Path, typed: str) -> list[str]:
    said = run(require("fish"), "--no-config", "-c", f"source {file}; complete -C 'scr-watchd {typed}'")
    return [line.split("\t")[0] for line in said.splitlines()]


def zsh_makes_of(file: Path, typed: str, wanted: str) -> str:
    """What stands on an interactive zsh's line once ``typed`` and a tab have become ``wanted``."""
    script = """
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell "PROMPT=; fpath=($1 \\$fpath); autoload -U compinit; compinit -u -D; print rea''dy"
        zpty -r shell line '*ready*'
        zpty -w -n shell "$2"$'\\t'
        zpty -r shell line "*$3*"
        print -r -- "$line"
        zpty -d shell
    """
    return run(require("zsh"), "-fc", script, "zsh", file.parent, typed, wanted)
