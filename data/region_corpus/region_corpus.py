"""The TFDS data set that holds one source of a corpus: its features, and how a record becomes bytes."""

import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits as tfds_splits
from tensorflow_datasets.proto import tf_example_pb2

from medp_clip_jax.records import RegionExample

TEXTS = ("dataset", "image_id", "group", "modality", "anatomy", "view", "caption")


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: there is no published copy to look up, and the look-up leaves a temporary directory behind."""


class RegionCorpus(tfds.core.GeneratorBasedBuilder):
    """One source = one builder config. It describes and names the files; `data.shards` writes them, because TFDS
    writes a split from one process and starts it anew after a kill."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First record schema."}

    def __init__(self, source: str, data_dir: str | os.PathLike[str]):
        config = tfds.core.BuilderConfig(name=source, description=f"Regions of {source}.")
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        region = {
            "label": tfds.features.Text(),
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "rle": tfds.features.Text(),
            "area": tfds.features.Scalar(np.float32),
        }
        return _LocalInfo(
            builder=self,
            description="Medical images with labelled regions; masks are COCO run-length encodings.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "width": tfds.features.Scalar(np.int32),
                    "height": tfds.features.Scalar(np.int32),
                    **{name: tfds.features.Text() for name in TEXTS},
                    "image_labels": tfds.features.Sequence(tfds.features.Text()),
                    "regions": tfds.features.Sequence(region),
                    "flips": tfds.features.Scalar(np.bool_),
                }
            ),
            disable_shuffling=True,  # records keep the order of the source
        )

    def _split_generators(self, dl_manager):
        raise NotImplementedError("the records of a corpus are written by data.build")

    def _generate_examples(self):
        raise NotImplementedError("the records of a corpus are written by data.build")


def serialize(example: RegionExample) -> bytes:
    """The record as the tf.Example that TFDS makes of these features, byte for byte, with its fields in a fixed order
    (protocol buffers otherwise order them anew in each process) and a tenth of the time."""
    proto = tf_example_pb2.Example()
    fields = proto.features.feature
    regions = example.regions
    fields["image"].bytes_list.value.append(example.image)
    for name in TEXTS:
        fields[name].bytes_list.value.append(getattr(example, name).encode())
    for name, number in (("width", example.width), ("height", example.height), ("flips", int(example.flips))):
        fields[name].int64_list.value.append(number)
    texts = {
        "image_labels": [label.encode() for label in example.image_labels],
        "regions/label": [region.label.encode() for region in regions],
        "regions/rle": [region.rle for region in regions],
    }
    for name, values in texts.items():
        fields[name].bytes_list.SetInParent()  # an empty list is there, too
        fields[name].bytes_list.value.extend(values)
    numbers = {
        "regions/box": [side for region in regions for side in region.box],
        "regions/area": [region.area for region in regions],
    }
    for name, values in numbers.items():
        fields[name].float_list.SetInParent()
        fields[name].float_list.value.extend(values)
    return proto.SerializeToString(deterministic=True)


def shard_name(builder: RegionCorpus, split: str, number: int, count: int) -> str:
    """File name of a split's shard `number` of `count`, as TFDS looks for it."""
    template = builder._get_filename_template(split_name=split)
    return template.sharded_filepath(shard_index=number, num_shards=count).name


def write_info(builder: RegionCorpus, lengths: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> None:
    """Writes what TFDS reads beside the shards: dataset_info.json and features.json. `lengths` are the records of each
    shard, `sizes` the bytes of the records, by split."""
    infos = [
        tfds_splits.SplitInfo(
            name=split,
            shard_lengths=list(counts),
            num_bytes=sizes[split],
            filename_template=builder._get_filename_template(split_name=split),
        )
        for split, counts in lengths.items()
    ]
    builder.info.set_splits(tfds_splits.SplitDict(infos))
    directory = pathlib.Path(builder.data_dir)
    directory.mkdir(parents=True, exist_ok=True)
    builder.info.write_to_directory(directory)
