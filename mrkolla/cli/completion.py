"""``mrkolla completion SHELL``: what a shell needs to complete verbs, options and values; see :func:`complete`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import argcomplete

#: How each shell gets the completions and keeps them, as its own documentation has it.
_SHELLS = {
    "bash": "mrkolla completion bash > ~/.local/share/bash-completion/completions/mrkolla",
    "zsh": "put 'eval \"$(mrkolla completion zsh)\"' behind compinit in ~/.zshrc",
    "fish": "mrkolla completion fish > ~/.config/fish/completions/mrkolla.fish",
}


def options(parser: argparse.ArgumentParser) -> None:
    """Options of ``mrkolla completion``."""
    where = "; ".join(f"{shell}: {how}" for shell, how in _SHELLS.items())
    parser.add_argument("shell", choices=sorted(_SHELLS), help=f"the shell. To keep it there, in {where}")


def completion(args: argparse.Namespace) -> int:
    """Print the lines by which a shell asks mrkolla what may come next."""
    print(argcomplete.shellcode(["mrkolla"], shell=args.shell))
    return 0


def complete(parser: Callable[[str], argparse.ArgumentParser], verbs: list[str]) -> None:
    """Answer the shell, which asks by variables of the environment, and end the process.

    ``parser`` makes the parser with the options of one of the ``verbs`` (or of none): no other is loaded.
    """
    line = os.environ["COMP_LINE"].encode()[: int(os.environ["COMP_POINT"])].decode(errors="replace")
    argcomplete.autocomplete(parser(next((word for word in line.split()[1:] if word in verbs), "")))
