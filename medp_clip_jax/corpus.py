"""Reading a corpus: a directory of ArrayRecord sources with a manifest and an ontology, written by `data.build`.

corpus.json                               what is there: sources, splits, counts, provenance, checksums
ontology.json                             every label id of the corpus, with names and parents
balance/<source>.<split>.npy              weights of training images, if the corpus was made by `data.curate`
region_corpus/<source>/<version>/         one TFDS dataset per source
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from medp_clip_jax.errors import InputError
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.records import Region, RegionExample

MANIFEST = "corpus.json"
ONTOLOGY = "ontology.json"
DATASET = "region_corpus"
BALANCE = "balance"
FORMAT = 1  # of the manifest and the records


@dataclasses.dataclass(frozen=True)
class Corpus:
    """An opened corpus; cheap to open, as no record is touched before it is asked for."""

    directory: pathlib.Path
    manifest: Mapping[str, Any]
    ontology: Ontology

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, sorted."""
        return tuple(sorted(self.manifest["sources"]))

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """Sorted ontology ids of all region labels, over all splits."""
        return tuple(sorted({label for split in self.splits for label in self.label_counts(split)}))

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits that hold an image, sorted."""
        return tuple(sorted({split for source in self.manifest["sources"].values() for split in source["splits"]}))

    def count(self, name: str, split: str) -> int:
        """Number of images of a source's split, 0 where it has none."""
        return self._statistics(name, split).get("images", 0)

    def label_counts(self, split: str, sources: Collection[str] | None = None) -> dict[str, int]:
        """Regions of each label in a split, over some sources (all if None)."""
        return self._total(split, "labels", sources)

    def image_label_counts(self, split: str, sources: Collection[str] | None = None) -> dict[str, int]:
        """Images with each image label in a split, over some sources (all if None)."""
        return self._total(split, "image_labels", sources)

    def source(self, name: str, split: str) -> Sequence[RegionExample]:
        """Random access to the records of one source's split, safe to share between threads; empty if it has none.

        Raises InputError for an unknown source, and for a missing or truncated file; reading a damaged record raises
        InputError naming the file and the record.
        """
        count = self.count(name, split)
        if not count:
            return ()
        folder = self.directory / self.manifest["sources"][name]["path"]
        _check_sizes(self.directory, self.manifest["sources"][name]["files"], split)
        return _Records(folder, split, count)

    def weights(self, name: str, split: str) -> np.ndarray:
        """How often each record of a source's split is to be drawn relative to the others, float32 [records], as
        `data.curate` balanced them; InputError if it did not, or a source was built since."""
        path = self.directory / BALANCE / f"{name}.{split}.npy"
        try:
            weights = np.load(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: no weights of the images ({error}): make the corpus with `python -m data.curate`, or set "
                "config.data.balanced to False"
            ) from error
        if weights.shape != (self.count(name, split),):
            raise InputError(f"{path}: weights of {weights.size} images, not {self.count(name, split)}: curate again")
        return weights

    def _statistics(self, name: str, split: str) -> Mapping[str, Any]:
        if name not in self.manifest["sources"]:
            raise InputError(
                f"{self.directory}: no source {name!r}, it has {', '.join(self.sources)}: name one of these"
            )
        return self.manifest["sources"][name]["splits"].get(split, {})

    def _total(self, split: str, field: str, sources: Collection[str] | None) -> dict[str, int]:
        total: dict[str, int] = {}
        for name in self.sources if sources is None else sources:
            for label, count in self._statistics(name, split).get(field, {}).items():
                total[label] = total.get(label, 0) + count
        return dict(sorted(total.items()))


class _Records(Sequence[RegionExample]):
    """The records of one split. The reader is opened on first use and left out of pickles, for worker processes."""

    def __init__(self, folder: pathlib.Path, split: str, count: int):
        self._folder, self._split, self._count = folder, split, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        number = index + self._count if index < 0 else index
        if not 0 <= number < self._count:
            raise IndexError(f"record {index} of {self._count}")
        try:
            return _example(self._reader[int(number)])
        except (RuntimeError, ValueError, OSError, LookupError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{self._folder}: record {number} of split {self._split!r} is unreadable ({reason}): rebuild the corpus"
            ) from error

    def __repr__(self) -> str:  # grain names its sources by this
        return f"{self._folder.parent.name}/{self._split} [{self._count}]"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_reader"}

    @functools.cached_property
    def _reader(self):
        import tensorflow_datasets as tfds  # a second's import, needed only where records are read

        _allow_open_files()
        builder = tfds.builder_from_directory(self._folder)
        raw = tfds.core.decode.DeserializeMethod.RAW_BYTES
        return builder.as_data_source(split=self._split, deserialize_method=raw)


def _allow_open_files(wanted: int = 65536) -> None:
    """A shard stays open once it has been read; large corpora have more than the 1,024 files often allowed at first."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not on every system

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _example(data: bytes) -> RegionExample:
    """The record in a serialised `tf.train.Example`, read several times as fast as by the features of the dataset."""
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        found = dict(tf_example_pb2.Example.FromString(data).features.feature)
    except DecodeError as error:
        raise ValueError(error) from error
    labels, rles = found["regions/label"].bytes_list.value, found["regions/rle"].bytes_list.value
    edges, areas = found["regions/box"].float_list.value, found["regions/area"].float_list.value
    boxes = [tuple(edges[i : i + 4]) for i in range(0, len(edges), 4)]
    regions = tuple(
        Region(label.decode(), box, rle, area) for label, box, rle, area in zip(labels, boxes, rles, areas, strict=True)
    )
    texts = ("dataset", "image_id", "group", "modality", "anatomy", "view", "caption")
    (image,), (flips,) = found["image"].bytes_list.value, found["flips"].int64_list.value
    (width,), (height,) = (found[name].int64_list.value for name in ("width", "height"))
    return RegionExample(
        image=image,
        width=width,
        height=height,
        image_labels=tuple(label.decode() for label in found["image_labels"].bytes_list.value),
        regions=regions,
        flips=bool(flips),
        **{name: found[name].bytes_list.value[0].decode() for name in texts},
    )


def _check_sizes(directory: pathlib.Path, files: Mapping[str, int], split: str) -> None:
    """A file that lost its tail still opens, and would fail in the middle of a run."""
    for name, expected in files.items():
        if f"-{split}." not in name:
            continue
        path = directory / name
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes instead of {expected}"
            raise InputError(f"{path}: the record file {state}: build this source again")


def open_corpus(directory: str | os.PathLike[str]) -> Corpus:
    """Opens the corpus in `directory`; InputError if there is none, or its manifest or ontology cannot be used."""
    directory = pathlib.Path(directory)
    path = directory / MANIFEST
    if not path.is_file():
        raise InputError(f"{directory}: not a corpus (no {MANIFEST}): make one with `python -m data.build`")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
        manifest["sources"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a corpus manifest ({error!r}): build the corpus again") from error
    if version != FORMAT:
        raise InputError(f"{path}: corpus format {version}, this version reads {FORMAT}: remove it and build it again")
    return Corpus(directory, manifest, Ontology.load(directory / ONTOLOGY))


def ensure_corpus(directory: str | os.PathLike[str], build_args: Sequence[str]) -> Corpus:
    """Opens the corpus in `directory`, after building it with `python -m data.build *build_args` if it is absent.

    Raises InputError with the build's own message if that fails, or if there is neither a corpus nor a way to build
    one.
    """
    directory = pathlib.Path(directory)
    if not (directory / MANIFEST).is_file() and build_args:
        _build(directory, build_args)
    return open_corpus(directory)


def stamps(folder: pathlib.Path, names: Iterable[str]) -> Iterator[str]:
    """Name, size and time of change of each of these files below `folder` that is there, sorted by name: what tells
    that they were changed, without reading them."""
    for name in sorted(names):
        with contextlib.suppress(OSError, ValueError):
            state = (folder / name).stat()
            yield f"{name} {state.st_size} {state.st_mtime_ns}"


def _build(directory: pathlib.Path, build_args: Sequence[str]) -> None:
    root = str(pathlib.Path(__file__).resolve().parents[1])  # `data` lies beside this package
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "data.build", *build_args, f"--output={directory}"]
    print(f"building the corpus {directory}", flush=True)
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        last = ""
        for line in process.stderr:
            last = line.strip() or last
            if not line.startswith("error: "):
                sys.stderr.write(line)
    if process.returncode:
        reason = last.removeprefix("error: ") or f"exit code {process.returncode}"
        raise InputError(f"building the corpus {directory} failed: {reason}")
