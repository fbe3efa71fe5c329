"""Tests of benchmarks/environments.py; nothing is installed."""

import re
import sys

import pytest

import environments
from environments import LeftOut, python_of, variables_of


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """What would be run; `python -m venv DIR` leaves a file where the environment's Python would be."""
    ran = []

    def fake(command):
        ran.append(command[1:4])
        if command[1:3] == ["-m", "venv"]:
            python = environments._python_in(environments.Path(command[3]))
            python.parent.mkdir(parents=True)
            python.touch()

    monkeypatch.setattr(environments, "_run", fake)
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(environments, "PINS", tmp_path)
    (tmp_path / "peer.txt").write_text("torch==2.13.0\n")
    return ran


def test_an_environment_is_made_once(commands, tmp_path):
    python = python_of("peer")
    assert python.is_relative_to(tmp_path / "cache" / "benchmarks" / "peer")
    assert [command[1] for command in commands] == ["venv", "pip"]
    assert python_of("peer") == python and len(commands) == 2


def test_pip_ends_a_failure_with_its_reason_not_with_a_notice(commands, monkeypatch):
    whole, fake = [], environments._run
    monkeypatch.setattr(environments, "_run", lambda command: (whole.append(command), fake(command)))
    python_of("peer")
    assert "--disable-pip-version-check" in whole[1]


def test_a_whole_list_is_installed_without_what_it_requires_beyond(commands, monkeypatch):
    whole, fake = [], environments._run
    monkeypatch.setattr(environments, "_run", lambda command: (whole.append(command), fake(command)))
    python_of("peer", whole=True)
    assert "--no-deps" in whole[1]


def test_other_pins_make_it_anew(commands, tmp_path):
    python_of("peer")
    (tmp_path / "peer.txt").write_text("torch==2.12.0\n")
    python_of("peer")
    assert [command[1] for command in commands] == ["venv", "pip"] * 2


def test_an_environment_whose_installation_failed_is_not_taken_for_made(commands, monkeypatch):
    def failing(command):
        raise LeftOut("pip failed")

    fake = environments._run
    monkeypatch.setattr(environments, "_run", failing)
    with pytest.raises(LeftOut):
        python_of("peer")
    monkeypatch.setattr(environments, "_run", fake)
    python_of("peer")
    assert len(commands) == 2


def test_a_failed_command_is_left_out_with_its_last_line():
    with pytest.raises(LeftOut, match="failed: no network"):
        environments._run([sys.executable, "-c", "import sys; sys.exit('looked around\\nno network')"])


def test_a_peer_does_not_see_our_packages(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "ours")
    assert "PYTHONPATH" not in variables_of("trl-1.12.0")
    assert variables_of(None)["PYTHONPATH"] == "ours"


@pytest.mark.parametrize("pins", sorted(environments.PINS.glob("*.txt")), ids=lambda path: path.stem)
def test_every_pin_is_exact_and_without_a_build_of_this_machine(pins):
    lines = [line for line in pins.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert "torch==2.13.0" in lines
    name, _, version = pins.stem.rpartition("-")
    assert f"{name}=={version}" in lines
