"""Records of a corpus in worker processes, which get many small ranges of the same few splits."""

import functools
import pathlib
from collections.abc import Sequence

from medp_clip_jax.corpus import Corpus, open_corpus
from medp_clip_jax.records import RegionExample


@functools.lru_cache(maxsize=2)
def corpus_in(directory: str) -> Corpus:
    """The corpus in a directory, opened once per process."""
    return open_corpus(pathlib.Path(directory))


@functools.lru_cache(maxsize=8)
def records_in(directory: str, name: str, split: str) -> Sequence[RegionExample]:
    """The records of one split, opened once per process: opening looks at every file of the source."""
    return corpus_in(directory).source(name, split)
