"""Tests of rlhf.cli.completion: what a shell offers after TAB, and what is written below the home directory."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.cli.completion import SHELLS, install, script_of
from rlhf.cli.options import make_parser
from rlhf.cli.pages import completed_words
from rlhf.errors import ConfigError

ASK = {
    "bash": """source {script}
COMP_WORDS=({line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); _rlhf; printf '%s\\n' "${{COMPREPLY[@]}}\"""",
    "fish": "source {script}; complete -C '{line}'",
    # zsh completes in its line editor alone: words and compadd are those that it would set.
    "zsh": """compdef() {{ :; }}; source {script}
compset() {{ return 1; }}
compadd() {{ while [[ $1 != -- ]]; do shift; done; shift; print -l -- ${{(M)@:#$last*}}; }}
words=({line}); CURRENT=$#words; last=$words[-1]; _rlhf""",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rlhf se", {"serve-reward"}),
        ("rlhf sft model.p", {"model.path=", "model.precision="}),
        ("rlhf ppo rewards.0.gate.r", {"rewards.0.gate.reward="}),
        ("rlhf generate --he", {"--help", "--help-all"}),
        ("rlhf serve-reward --po", {"--port"}),
        ("rlhf merge --conf", set()),
    ],
)
def test_a_shell_offers_verbs_options_and_keys(shell, line, offered, tmp_path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(script_of(shell, completed_words(make_parser()[1])))
    asked = ASK[shell].format(script=script, line=line)
    done = subprocess.run([shell, "-c", asked], capture_output=True, text=True, timeout=60)
    assert (done.stderr, set(done.stdout.split())) == ("", offered)


def test_the_script_is_read_from_one_line_however_often_it_is_installed(home, capsys) -> None:
    (home / ".bashrc").write_text("alias ll='ls -l'")
    for _ in range(2):
        assert main(["--install-completion", "bash"]) == 0
    script = home / ".local/share/rlhf/completion.bash"
    assert "output_dir=" in script.read_text()
    assert (home / ".bashrc").read_text() == f"alias ll='ls -l'\nsource \"{script}\"\n"
    printed = capsys.readouterr().out
    assert printed.count(f"wrote {script}\n") == 2 and printed.count("added a line to") == 1


def test_the_shell_is_ones_own_unless_it_is_named(home, monkeypatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["--install-completion"]) == 0
    assert (home / ".config/fish/completions/rlhf.fish").is_file()
    assert not (home / ".bashrc").exists()


def test_another_shell_is_refused_and_so_is_a_home_that_cannot_be_written(home, monkeypatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    with pytest.raises(ConfigError, match="--install-completion: tcsh: must be one of bash, zsh, fish"):
        install(None, {})
    (home / ".local").write_text("a file")
    with pytest.raises(ConfigError, match=r"--install-completion: .*\.local.*: cannot be written"):
        install("zsh", {})
