"""Packages that few sources need: imported where one does, so that other data are read without them."""

from importlib import import_module
from types import ModuleType

from rlhf.errors import DataError


def needed(module: str, source: object) -> ModuleType:
    """Import a module that a source needs: `pyarrow.parquet`.

    Raises:
        DataError: its package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:  # it is there, and lacks something itself
            raise
        raise DataError(
            f"{source}: needs the package {package}, which is not installed - pip install {package}, or give a .jsonl "
            "file"
        ) from None
