"""`rlhf init`: a shipped recipe, with the data and schemas that it names, in a directory of one's own."""

import re
import shutil
from pathlib import Path

from rlhf.errors import CheckpointError, ConfigError

_PACKAGE = Path(__file__).parent
_FIRST = "run.yaml"
"""The file that makes a folder a recipe."""
_SHIPPED_FILE = re.compile(r"(?<![\w/.])data/[\w.-]+")
"""A shipped file or folder, as a recipe names it."""


def recipes() -> list[str]:
    """Return the names of the recipes."""
    return sorted(path.parent.name for path in (_shipped() / "configs").glob(f"*/{_FIRST}"))


def write_recipe(name: str, directory: Path) -> Path:
    """Copy a recipe into a directory in which it runs: its YAML files, the schemas, and the shipped data that it names.

    Args:
        name: one of `recipes()`.
        directory: new or empty. The paths of the recipe start there.

    Returns:
        The file to run, `run.yaml`.

    Raises:
        ConfigError: there is no such recipe, or the directory holds something.
        CheckpointError: the directory cannot be written.
    """
    if name not in recipes():
        raise ConfigError(f"init: --recipe {name}: must be one of {', '.join(recipes())}")
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigError(f"init: {directory}: is not an empty directory - give a new one")
        _copy(name, directory)
    except OSError as error:
        raise CheckpointError(f"init: {directory}: cannot be written: {error}") from None
    return directory / _FIRST


def _copy(name: str, directory: Path) -> None:
    source = _shipped() / "configs"
    shutil.copytree(source / "schema", directory / "schema")
    for path in sorted((source / name).iterdir()):
        text = path.read_text(encoding="utf-8").replace(f"configs/{name}/", "").replace("=../schema/", "=schema/")
        (directory / path.name).write_text(text, encoding="utf-8")
        for named in sorted(set(_SHIPPED_FILE.findall(text))):
            _copy_shipped(named, directory)


def _copy_shipped(named: str, directory: Path) -> None:
    """Copy one file or folder of the shipped data to the same path below a directory."""
    source, target = _shipped() / named, directory / named
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)


def _shipped() -> Path:
    """Return the folder with configs/ and data/: inside an installed package, or the root of a clone."""
    installed = _PACKAGE / "shipped"
    return installed if installed.is_dir() else _PACKAGE.parent
