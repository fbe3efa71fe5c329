import re

import pytest

from rlhf.errors import DataError
from rlhf.fetch.artifacts import artifact_named, catalogue


def test_the_catalogue_names_exact_versions_and_hashes():
    assert sorted(catalogue()) == ["minilm-l6-v2", "movie-reviews", "smollm2-135m-instruct"]
    for name, artifact in catalogue().items():
        assert artifact.name == name
        assert re.fullmatch(r"\d+\.\d+\.\d+", artifact.version)
        assert re.fullmatch(r"[0-9a-f]{64}", artifact.sha256)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        DataError, match="no artifact is named 'gpt-3'; expected one of minilm-l6-v2, movie-reviews, smollm2"
    ):
        artifact_named("gpt-3")
