"""Completion of verbs, options and keys with TAB: a script for each shell, and the line that makes a shell read it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import ConfigError

Words = Mapping[str, Sequence[str]]
"""What may follow each verb: options, and keys that end in `=`."""
TOP_OPTIONS = ("--help", "--version", "--install-completion")

_BASH = """\
# Completes rlhf in bash. `rlhf --install-completion bash` wrote this file, and writes it anew.
_rlhf() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    COMPREPLY=()
    case "${{COMP_WORDS[COMP_CWORD-1]}}" in --config|=) return;; esac
    if [ "$COMP_CWORD" -eq 1 ]; then words="{first}"
    else case "${{COMP_WORDS[1]}}" in
{cases}
    esac; fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    case "${{COMPREPLY[0]}}" in *=) compopt -o nospace 2>/dev/null;; esac
}}
complete -o default -F _rlhf rlhf
"""
_ZSH = """\
#compdef rlhf
# Completes rlhf in zsh. `rlhf --install-completion zsh` wrote this file, and writes it anew.
_rlhf() {{
    local -a found
    if (( CURRENT == 2 )); then compadd -- {first}; return; fi
    if [[ ${{words[CURRENT-1]}} == --config ]] || compset -P '*='; then _files; return; fi
    case ${{words[2]}} in
{cases}
    esac
    compadd -S '' -- ${{(M)found:#*=}}
    compadd -- ${{found:#*=}}
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit; compinit; }}
compdef _rlhf rlhf
"""
_FISH_HEAD = "# Completes rlhf in fish. `rlhf --install-completion fish` wrote this file, and writes it anew.\n"


@dataclass(frozen=True)
class _Shell:
    """Where a shell finds its script."""

    script: str
    """Path of the script, below the home directory."""
    startup: str | None
    """File below the home directory in which a line reads the script; None: the shell finds it by itself."""


_PLACES = {
    "bash": _Shell(".local/share/rlhf/completion.bash", ".bashrc"),
    "zsh": _Shell(".local/share/rlhf/completion.zsh", ".zshrc"),
    "fish": _Shell(".config/fish/completions/rlhf.fish", None),
}
SHELLS = tuple(_PLACES)
"""The shells that can be completed in."""


def install(shell: str | None, words: Words) -> list[str]:
    """Write a shell's script below the home directory, and the line that reads it into the shell's startup file.

    Args:
        shell: one of SHELLS; None takes the name of $SHELL.
        words: what may follow each verb.

    Returns:
        Lines that say what was written.

    Raises:
        ConfigError: the shell is not one of them, or a file cannot be written.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _PLACES:
        raise ConfigError(f"--install-completion: {name or 'no shell'}: must be one of {', '.join(SHELLS)}")
    home, place = Path.home(), _PLACES[name]
    script = home / place.script
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(script_of(name, words), encoding="utf-8")
        said = [f"wrote {script}"]
        if place.startup is not None and _added(home / place.startup, f'source "{script}"'):
            said.append(f"added a line to {home / place.startup} that reads it")
    except OSError as error:
        raise ConfigError(f"--install-completion: {error.filename or script}: cannot be written: {error}") from None
    return [*said, f"new {name} shells complete rlhf; after an upgrade run this again"]


def script_of(shell: str, words: Words) -> str:
    """Return the script with which a shell completes `rlhf`."""
    if shell == "fish":
        return _fish(words)
    first = " ".join([*words, *TOP_OPTIONS])
    if shell == "bash":
        return _BASH.format(first=first, cases=_cases(words, 'words="{}"'))
    return _ZSH.format(first=first, cases=_cases(words, "found=({})"))


def _cases(words: Words, setting: str) -> str:
    """Return the branches of a `case` over the verbs."""
    return "\n".join(f"    {verb}) {setting.format(' '.join(each))};;" for verb, each in words.items())


def _fish(words: Words) -> str:
    """Return one line for the verbs and one for each verb; fish completes what it is given."""
    first = " ".join([*words, *TOP_OPTIONS])
    lines = [f"complete -c rlhf -n __fish_use_subcommand -f -a '{first}'"]
    for verb, each in words.items():
        lines.append(f"complete -c rlhf -n '__fish_seen_subcommand_from {verb}' -a '{' '.join(each)}'")
    return _FISH_HEAD + "\n".join(lines) + "\n"


def _added(startup: Path, line: str) -> bool:
    """Append a line to a file unless it is there; return whether it was appended."""
    text = startup.read_text(encoding="utf-8") if startup.exists() else ""
    if line in text.splitlines():
        return False
    separator = "" if not text or text.endswith("\n") else "\n"
    with startup.open("a", encoding="utf-8") as file:
        file.write(f"{separator}{line}\n")
    return True
