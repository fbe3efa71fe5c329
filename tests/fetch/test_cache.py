import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.errors import DataError
from rlhf.fetch import artifacts, cache
from rlhf.fetch.artifacts import Artifact
from rlhf.fetch.cache import cache_home, fetch, resolve
from rlhf.fetch.download import verify

CONTENT = b"a wheel"


class Index:
    """A package index of one artifact, `thing`: what pip gives, and how often it was asked."""

    def __init__(self):
        self.content = CONTENT
        self.num_downloads = 0
        self.builder_version = 1
        self.fails_while_building = False

    def build(self, wheel, directory):
        (directory / "rows.jsonl").write_bytes(wheel.read_bytes())
        if self.fails_while_building:
            raise OSError(28, "No space left on device", str(directory / "rows.jsonl"))
        (directory / "sub").mkdir()
        (directory / "sub" / "more.txt").write_text("more")
        return {"rows": 1}

    def catalogue(self):
        thing = Artifact(
            name="thing",
            package="thing",
            version="1.0",
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            description="A thing.",
            builder_version=self.builder_version,
            build=self.build,
        )
        return {"thing": thing}


@pytest.fixture
def index(monkeypatch, tmp_path):
    fake = Index()

    def download(package, version, sha256, directory):
        fake.num_downloads += 1
        wheel = directory / "thing.whl"
        wheel.write_bytes(fake.content)
        verify(wheel, sha256)
        return wheel

    monkeypatch.setattr(artifacts, "catalogue", fake.catalogue)
    monkeypatch.setattr(cache, "download_wheel", download)
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "home"))
    return fake


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_who_waits_for_a_download_is_told_once_and_results_stay_apart(index, capsys):
    fetch("thing")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "fetching thing (thing==1.0), once for all runs ...\nunpacking thing ...\n"
    fetch("thing")
    assert capsys.readouterr() == ("", "")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RLHF_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_home() == tmp_path / ".cache/rlhf"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_home() == Path("/caches/rlhf")
    monkeypatch.setenv("RLHF_HOME", "~/elsewhere")
    assert cache_home() == tmp_path / "elsewhere"


def test_an_artifact_is_built_once_with_a_manifest_of_its_files(index):
    directory = fetch("thing")
    assert directory == cache_home() / "thing"
    manifest = json.loads((directory / "complete.json").read_text())
    assert manifest["counts"] == {"rows": 1}
    assert manifest["files"] == {
        "rows.jsonl": {"size": 7, "sha256": hashlib.sha256(CONTENT).hexdigest()},
        "sub/more.txt": {"size": 4, "sha256": hashlib.sha256(b"more").hexdigest()},
    }
    assert fetch("thing") == directory
    assert index.num_downloads == 1
    assert names(cache_home()) == {"thing", "thing.lock"}


def test_a_wrong_hash_leaves_nothing_half_written(index):
    index.content = b"another wheel"
    with pytest.raises(DataError, match="expected"):
        fetch("thing")
    assert names(cache_home()) == {"thing.lock"}
    index.content = CONTENT
    assert fetch("thing").is_dir()


def test_a_build_that_fails_leaves_nothing_and_says_where(index):
    index.fails_while_building = True
    with pytest.raises(DataError, match=r"fetch: cannot write .*rows.jsonl: No space left on device - set RLHF_HOME"):
        fetch("thing")
    assert names(cache_home()) == {"thing.lock"}


def test_what_a_killed_process_left_is_removed_and_not_taken_for_an_artifact(index):
    leftover = cache_home() / "thing.tmp-dead" / "built"
    leftover.mkdir(parents=True)
    (cache_home() / "thing").mkdir()  # without a manifest
    fetch("thing")
    assert index.num_downloads == 1
    assert names(cache_home()) == {"thing", "thing.lock"}


@pytest.mark.parametrize("damage", ["truncated file", "missing file", "broken manifest", "list manifest"])
def test_a_damaged_artifact_is_built_again(index, damage):
    directory = fetch("thing")
    if damage == "truncated file":
        (directory / "rows.jsonl").write_bytes(b"a")
    elif damage == "missing file":
        (directory / "sub" / "more.txt").unlink()
    else:
        (directory / "complete.json").write_text("{" if damage == "broken manifest" else "[]")
    fetch("thing")
    assert index.num_downloads == 2
    assert (directory / "rows.jsonl").read_bytes() == CONTENT


def test_a_newer_builder_builds_again(index):
    fetch("thing")
    index.builder_version = 2
    fetch("thing")
    assert index.num_downloads == 2


def test_a_cache_that_cannot_be_written_is_explained(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match=r"fetch: cannot write .*file.* - set RLHF_HOME"):
        fetch("thing")


def test_a_process_that_waited_for_the_lock_does_not_build_again(index):
    locked = cache.FileLock

    class SlowLock(locked):  # type: ignore[misc, valid-type]
        def __enter__(self):
            # Another process was first.
            cache.FileLock = locked
            fetch("thing")
            return super().__enter__()

    cache.FileLock = SlowLock
    try:
        fetch("thing")
    finally:
        cache.FileLock = locked
    assert index.num_downloads == 1


def test_names_with_fetch_become_paths_and_others_are_left_alone(index):
    assert resolve("someone/model") == "someone/model"
    assert resolve("./fetch/x.jsonl") == "./fetch/x.jsonl"
    assert index.num_downloads == 0
    assert resolve("fetch:thing") == str(cache_home() / "thing")
    assert resolve("fetch:thing/sub/more.txt") == str(cache_home() / "thing" / "sub" / "more.txt")


@pytest.mark.parametrize("file", ["other.jsonl", "../thing/rows.jsonl", "complete.json", "/etc/passwd"])
def test_only_files_of_the_artifact_are_resolved(index, file):
    with pytest.raises(DataError, match="thing holds no file .*; expected one of rows.jsonl, sub/more.txt"):
        resolve(f"fetch:thing/{file}")


def test_listing_the_catalogue_loads_no_large_library():
    program = (
        "import sys, rlhf.fetch; rlhf.fetch.catalogue(); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
