"""What `python -m data.curate` looks for, and what it does with what it finds: `--config.tiny.pixels=25` changes one.

`action` is "drop" (leave it out of the curated corpus), "flag" (keep it, and name it in curation/flags.jsonl) or "keep"
(do not look). Images come as records; a dropped image takes its regions along. Lengths are in pixels of the image.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The rules in the order in which they are applied; the first that fits a region or image is the one counted."""
    config = ConfigDict()

    # images
    config.corrupt = ConfigDict({"action": "drop"})  # cannot be decoded, or has another size than the record says
    config.small = ConfigDict({"action": "drop", "side": 32})  # the shorter side is below this
    config.flat = ConfigDict({"action": "drop", "deviation": 3.0})  # grey values (0..255) deviate less than this

    # regions
    config.empty = ConfigDict({"action": "drop"})  # no pixel, or a box without area
    config.damaged = ConfigDict({"action": "drop"})  # the mask does not fit the image, or its box or area do not fit it
    config.tiny = ConfigDict({"action": "drop", "pixels": 5.0})  # a smaller area
    config.border = ConfigDict({"action": "drop", "width": 2})  # lies wholly within this distance of the image's edge
    # of its pixels at least `share` lie in specks of at most `speck` pixels: noise of a label map
    config.noise = ConfigDict({"action": "drop", "speck": 3, "share": 0.25})
    # more than `parts` connected parts, the largest of which has less than `share` of the area
    config.fragments = ConfigDict({"action": "flag", "parts": 12, "share": 0.3})
    config.whole = ConfigDict({"action": "flag", "share": 0.98})  # covers this share of the image
    # overlaps (intersection over union) an earlier region of the image this much, with
    config.repeated = ConfigDict({"action": "drop", "overlap": 0.95})  # the same label
    config.conflict = ConfigDict({"action": "flag", "overlap": 0.95})  # a label that is no kind of the other
    config.bare = ConfigDict({"action": "flag"})  # an image that has lost all its regions

    # between images; dropped is what trains, else what comes later in the order of sources, splits and records
    config.train_splits = ("train",)  # all other splits are for evaluation
    config.groups = ConfigDict({"action": "drop"})  # patients in training and in another split of the same source
    config.exact = ConfigDict({"action": "drop"})  # the same bytes as another image, and no label that it lacks
    config.relabelled = ConfigDict({"action": "flag"})  # the same bytes as another image, but with labels that it lacks
    # perceptual hashes (64 bits) at most `distance` bits apart and thumbnails at most `difference` grey values (mean)
    config.near = ConfigDict({"action": "flag", "distance": 4, "difference": 4.0})
    config.near_group = ConfigDict({"action": "keep"})  # the same, within one patient: neighbouring slices
    # images of training that are found in another split, or in a corpus given by --evaluation
    config.leak_group = ConfigDict({"action": "drop"})  # of a patient of a source of the same name
    config.leak_exact = ConfigDict({"action": "drop"})
    config.leak_near = ConfigDict({"action": "drop"})  # by distance and difference of `near`

    # weights of the training images: cells of modality x label are drawn as if they had count ** temperature regions;
    # no image is drawn more than `most` times as often as the average, or less than 1 / `most`
    config.balance = ConfigDict({"temperature": 0.5, "most": 8.0})
    config.examples = 20  # that the report names for each rule
    return config
