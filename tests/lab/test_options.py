"""Tests of rlhf.lab.options."""

import argparse
from pathlib import Path

from rlhf.lab.experiments import EXPERIMENTS
from rlhf.lab.options import LabOptions, add_options
from rlhf.lab.section import Settings


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return LabOptions.of(parser.parse_args(arguments))


def test_without_options_everything_runs_at_full_size():
    assert parsed() == LabOptions(output_dir=Path("runs/lab"), names=tuple(EXPERIMENTS), settings=Settings())


def test_a_name_that_stands_twice_runs_once():
    assert parsed("--only", "stability", "stability").names == ("stability",)
