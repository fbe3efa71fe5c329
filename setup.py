"""Puts the recipes and their data beside the code, so that an installed package has them. See pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("configs", "data")
"""Folders that `rlhf init` copies from; in a clone they stay where they are."""


class BuildWithRecipes(build_py):
    """Builds the package, with the folders in `rlhf/shipped`."""

    def run(self) -> None:
        """Build; an editable installation reads the clone and gets no copy."""
        super().run()
        if self.editable_mode:
            return
        for folder in SHIPPED:
            place = Path(self.build_lib) / "rlhf" / "shipped" / folder
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(folder, place, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithRecipes})
