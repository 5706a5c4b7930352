"""TFDS builder that writes one source of a corpus as ArrayRecord, without TensorFlow."""

import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.proto import tf_example_pb2

from medp_clip_jax.records import RegionExample

ExampleStream = Callable[[], Iterator[RegionExample]]


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: there is no published copy to look up, and the look-up leaves a temporary directory behind."""


class _StableWriter(tfds_writer.ExampleWriter):
    """Writes the fields of a record in a fixed order: protocol buffers otherwise order them anew in each process."""

    def write(self, path, examples):
        def sort(serialized: bytes) -> bytes:
            return tf_example_pb2.Example.FromString(serialized).SerializeToString(deterministic=True)

        return super().write(path, ((key, sort(serialized)) for key, serialized in examples))


class RegionCorpus(tfds.core.GeneratorBasedBuilder):
    """One source = one builder config. Images travel as encoded bytes: numpy images would make TFDS import
    TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First record schema."}

    def __init__(self, source: str, splits: Mapping[str, ExampleStream], data_dir: str | os.PathLike[str]):
        self._streams = splits
        config = tfds.core.BuilderConfig(name=source, description=f"Regions of {source}.")
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        region = {
            "label": tfds.features.Text(),
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "rle": tfds.features.Text(),
            "area": tfds.features.Scalar(np.float32),
        }
        texts = ("dataset", "image_id", "group", "modality", "anatomy", "view", "caption")
        return _LocalInfo(
            builder=self,
            description="Medical images with labelled regions; masks are COCO run-length encodings.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "width": tfds.features.Scalar(np.int32),
                    "height": tfds.features.Scalar(np.int32),
                    **{name: tfds.features.Text() for name in texts},
                    "image_labels": tfds.features.Sequence(tfds.features.Text()),
                    "regions": tfds.features.Sequence(region),
                    "flips": tfds.features.Scalar(np.bool_),
                }
            ),
            disable_shuffling=True,  # records keep the order of the source
        )

    def _example_writer(self):
        return _StableWriter(self.info.file_format)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(stream) for name, stream in self._streams.items()}

    def _generate_examples(self, stream):
        for number, example in enumerate(stream()):
            fields = dataclasses.asdict(example)
            yield number, {**fields, "image": io.BytesIO(example.image)}
