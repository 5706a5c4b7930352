"""Names regions of an image with a trained model.

    python -m medp_clip_jax.predict scan.png --box=30,40,120,160 --labels="liver,spleen,kidney" [--checkpoint=RUN_DIR]

Without a prompt the whole image is named. One --box (or none), any --point, any --negative_point and a --mask together
describe one region. Several --box are one region each; points or a mask are refused then, as they could belong to any.
With --segment each region also gets a mask: a PNG, its outline in the overlay, run lengths in --json, and of a DICOM
image a segment in --dicom_seg. Several regions with clicks come from a file, --prompts. Coordinates are pixels of the
image from its top left corner. Without --labels all labels of the model are ranked, which is the one that this package
brings if no other is named.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from medp_clip_jax import api, dicom_seg, predict_masks
from medp_clip_jax.config import load_config
from medp_clip_jax.errors import InputError, run_cli
from medp_clip_jax.evaluators.encode import encode_labels
from medp_clip_jax.hub import DEFAULT, locate
from medp_clip_jax.ontology import Ontology
from medp_clip_jax.overlay import Shape, draw
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.readers import PLANES, WINDOWS, Window, read_image, read_mask
from medp_clip_jax.results import NOTICE

FLAGS = flags.FLAGS
Numbers = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Prompted:
    """What the user marked, in pixels: boxes (x0, y0, x1, y1), clicks (x, y) and a mask bool [height, width]."""

    boxes: tuple[Numbers, ...] = ()
    points: tuple[Numbers, ...] = ()
    negative_points: tuple[Numbers, ...] = ()
    mask: np.ndarray | None = None

    def regions(self) -> list[Shape]:
        """The regions that these marks describe, see the module's rule; InputError where that is not clear."""
        marks = self.points or self.negative_points or self.mask is not None
        if len(self.boxes) > 1 and marks:
            raise InputError(
                f"{len(self.boxes)} boxes together with points or a mask: expected one box then, as the points could "
                "belong to any; ask once per box"
            )
        if len(self.boxes) > 1:
            return [Shape("", box) for box in self.boxes]
        return [Shape("", self.boxes[0] if self.boxes else None, self.points, self.negative_points, self.mask)]


def region_prompts(prompted: Prompted, size: tuple[int, int]) -> RegionPrompts:
    """Prompts [1, regions] of one image of `size` (width, height); InputError for marks that do not fit the image."""
    prompts = RegionPrompts.none(1, len(prompted.regions()))
    if prompted.boxes:
        prompts = RegionPrompts.combine(prompts, RegionPrompts.from_boxes([prompted.boxes], size))
    clicks = (*prompted.points, *prompted.negative_points)
    if clicks:
        labels = [1] * len(prompted.points) + [0] * len(prompted.negative_points)
        prompts = RegionPrompts.combine(prompts, RegionPrompts.from_points([[clicks]], [[labels]], size))
    if prompted.mask is not None:
        prompts = RegionPrompts.combine(prompts, RegionPrompts.from_masks(prompted.mask[None, None]))
    return prompts


def label_nodes(ontology: Ontology, labels: Sequence[str]) -> tuple[Ontology, dict[str, str]]:
    """Looks labels up as the user wrote them: the ontology, with nodes added for unknown ones, and {node id: label}."""
    found: dict[str, str] = {}
    for label in labels:
        node_id = ontology.resolve(label)
        if node_id is None:
            node = ontology.draft(label)
            if node.id in ontology:  # spelled like a node's id, but not the same thing
                raise InputError(f"label {label!r}: could be {ontology[node.id].name!r}; write it out or use that name")
            print(f"note: label {label!r} is not in the ontology of this run; read as plain words", file=sys.stderr)
            ontology, node_id = ontology.with_node(node), node.id
        found.setdefault(node_id, label)
    return ontology, found


def rank(model: api.Model, params: Any, images: Any, prompts: RegionPrompts, text: np.ndarray) -> np.ndarray:
    """Probabilities of labels, float32 [regions, labels], for the regions of one image; `text` is [labels, dim]."""
    features = model.encode_image(params, images)
    regions = model.encode_regions(params, features, prompts)
    return np.asarray(jax.device_get(api.classify(regions, text, params)))[0]


def answer(shape: Shape, scores: np.ndarray, ids: Sequence[str], names: Sequence[str], top: int) -> dict[str, Any]:
    """One region as plain values: its prompt in pixels and its best `top` labels, best first."""
    best = np.argsort(-scores, kind="stable")[:top]
    prompt = {
        "box": list(shape.box) if shape.box else None,
        "points": [list(point) for point in shape.points],
        "negative_points": [list(point) for point in shape.negative_points],
        "mask_area": None if shape.mask is None else int(shape.mask.sum()),
    }
    ranking = [{"label": names[i], "id": ids[i], "score": round(float(scores[i]), 6)} for i in best]
    return {"prompt": prompt, "ranking": ranking}


def table(answers: Sequence[dict[str, Any]]) -> str:
    """The answers as text for the screen, one block per region."""
    lines = []
    for number, found in enumerate(answers, 1):
        lines.append(
            f"region {number}: {_describe(found['prompt'])}" if len(answers) > 1 else _describe(found["prompt"])
        )
        width = max(len(entry["label"]) for entry in found["ranking"])
        for place, entry in enumerate(found["ranking"], 1):
            bar = "#" * round(20 * entry["score"])
            lines.append(f"  {place:3d}  {entry['label']:<{width}}  {entry['score']:.3f}  {bar}".rstrip())
    return "\n".join(lines)


def _describe(prompt: dict[str, Any]) -> str:
    parts = [f"box {_numbers(prompt['box'])}"] if prompt["box"] else []
    parts += [f"point {_numbers(point)}" for point in prompt["points"]]
    parts += [f"not at {_numbers(point)}" for point in prompt["negative_points"]]
    parts += [f"mask of {prompt['mask_area']} px"] if prompt["mask_area"] else []
    return ", ".join(parts) or "whole image"


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def parse_numbers(text: str, names: str, flag: str) -> Numbers:
    """Reads "30,40,120,160"; InputError unless it has one finite number for each of the comma-separated `names`."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != len(names.split(",")) or not np.isfinite(values).all():
        raise InputError(f"--{flag}={text}: expected {names} in pixels, as in --{flag}={names}")
    return values


def parse_window(text: str | None) -> Window:
    """Reads a window's name or "level,width"; InputError if it is neither."""
    if text is None or text in WINDOWS:
        return text
    try:
        level, width = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--window={text}: expected one of {', '.join(WINDOWS)} or level,width") from None
    return level, width


def main(argv: Sequence[str]) -> None:
    """Reads the flags, asks the model, prints."""
    if len(argv) != 2:
        raise InputError(f"expected one image, got {len(argv) - 1}: {' '.join(argv[1:])} (see --help)")
    if not FLAGS.checkpoint:
        raise InputError("expected --checkpoint=RUN_DIR, the workdir of a training run, or a release")
    path, run_dir = pathlib.Path(argv[1]), locate(FLAGS.checkpoint)
    boxes = tuple(parse_numbers(text, "x0,y0,x1,y1", "box") for text in FLAGS.box)
    points = tuple(parse_numbers(text, "x,y", "point") for text in FLAGS.point)
    negative = tuple(parse_numbers(text, "x,y", "negative_point") for text in FLAGS.negative_point)
    image = read_image(path, parse_window(FLAGS.window), FLAGS.plane, FLAGS.index)
    size = image.shape[1], image.shape[0]
    mask = read_mask(FLAGS.mask, size, FLAGS.plane, FLAGS.index) if FLAGS.mask else None
    prompted = Prompted(boxes, points, negative, mask)
    marked = bool(boxes or points or negative or mask is not None)
    if FLAGS.segment and not (marked or FLAGS.prompts):
        raise InputError("--segment: expected a prompt; point at the region with --box, --point, --mask or --prompts")
    if FLAGS.dicom_seg and not FLAGS.segment:
        raise InputError("--dicom_seg: expected --segment with it, as there is no mask otherwise")
    if FLAGS.prompts and marked:
        raise InputError("--prompts together with other prompts: expected one of both; write all of them into the file")
    try:
        shapes = predict_masks.read_prompts(pathlib.Path(FLAGS.prompts)) if FLAGS.prompts else prompted.regions()
        prompts = predict_masks.shape_prompts(shapes, size) if FLAGS.prompts else region_prompts(prompted, size)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None

    model, params, processor = api.load(run_dir)
    ontology, labels = run_labels(run_dir, FLAGS.labels)
    ids, names = list(labels), list(labels.values())
    context = load_config(run_dir / "config.json").input.label_context
    text = encode_labels(model, params, processor.tokenizer, ontology, ids, context)
    images, written = processor.images(image), []
    if FLAGS.segment:
        masks, facts, embeddings = predict_masks.segment(model, params, images, prompts, size)
        scores = np.asarray(api.classify(embeddings, text, params))
    else:
        scores = rank(model, params, images, prompts, text)
    answers = [answer(shape, row, ids, names, FLAGS.top) for shape, row in zip(shapes, scores, strict=True)]
    if FLAGS.segment:
        written = predict_masks.write_masks(masks, path.name.split(".")[0])
        if FLAGS.dicom_seg:
            nodes = [ontology[found["ranking"][0]["id"]] for found in answers]
            target = pathlib.Path(FLAGS.dicom_seg)
            dicom_seg.write_dicom_seg(target, path, masks, nodes, FLAGS.index, FLAGS.identified)
        shapes = [dataclasses.replace(shape, mask=mask) for shape, mask in zip(shapes, masks, strict=True)]
        for found, name, known in zip(answers, written, facts, strict=True):
            found["mask"] = {"file": name, **known}
    output = write_overlay(image, shapes, answers, FLAGS.output or f"{path.name.split('.')[0]}_regions.png")
    if FLAGS.json:
        found = {"image": str(path), "size": size, "run": str(run_dir), "labels": len(ids), "regions": answers}
        print(json.dumps({**found, "overlay": output, "notice": NOTICE}, indent=1))
    else:
        print(f"{path}: {size[0]} x {size[1]} px, {len(ids)} labels\n{table(answers)}\noverlay: {output}")
        seg = [f"DICOM SEG: {FLAGS.dicom_seg}"] if FLAGS.dicom_seg else []
        print("\n".join([*(f"mask: {name}" for name in written), *seg, NOTICE]))


def run_labels(run_dir: pathlib.Path, given: Sequence[str]) -> tuple[Ontology, dict[str, str]]:
    """The labels to rank as {node id: name}, those given or all of the run, and the ontology that has them all."""
    ontology = Ontology.load(run_dir / "ontology.json")
    given = [label.strip() for label in given if label.strip()]
    if given:
        return label_nodes(ontology, given)
    path = run_dir / "labels.json"
    try:
        ids = json.loads(path.read_text())["labels"]
        return ontology, {node_id: ontology[node_id].name for node_id in ids}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no readable list of labels ({error!r}); restore the run's file or give --labels"
        ) from None


def write_overlay(image: np.ndarray, shapes: Sequence[Shape], answers: Sequence[dict[str, Any]], output: str) -> str:
    """Draws each region with its best label into the file `output`, returned; InputError if that cannot be written."""
    best = [found["ranking"][0] for found in answers]
    captions = [f"{entry['label']} {entry['score']:.2f}" for entry in best]
    picture = draw(image, [dataclasses.replace(s, caption=text) for s, text in zip(shapes, captions, strict=True)])
    try:
        picture.save(output)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{output}: cannot write the overlay ({error}); give --output=FILE.png in a writable folder"
        ) from None
    return output


if __name__ == "__main__":
    flags.DEFINE_string("checkpoint", DEFAULT, "A training run, a release folder, or a release by name.")
    flags.DEFINE_multi_string("box", [], "x0,y0,x1,y1 in pixels; several are one region each.")
    flags.DEFINE_multi_string("point", [], "x,y of a click inside the region; may be repeated.")
    flags.DEFINE_multi_string("negative_point", [], "x,y of a click outside the region; may be repeated.")
    flags.DEFINE_string("mask", None, "Mask of the region: PNG, .npy or NIfTI of the image's size, non-zero inside.")
    flags.DEFINE_string("prompts", None, "JSON list of regions, each with box, points and negative_points in pixels.")
    flags.DEFINE_bool("segment", False, "Also segment each region, and name what its mask shows.")
    flags.DEFINE_string("dicom_seg", None, "DICOM SEG to write of the masks of a DICOM image; see --identified.")
    flags.DEFINE_bool("identified", False, "Keep the patient's fields and UIDs in --dicom_seg, for an archive.")
    flags.DEFINE_list("labels", [], "Labels to rank, separated by commas; all of the run if not given.")
    flags.DEFINE_integer("top", 5, "How many labels to show per region.", lower_bound=1)
    flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
    flags.DEFINE_string("output", None, "Overlay PNG; IMAGE_regions.png in the current folder if not given.")
    flags.DEFINE_string("window", None, f"For CT: one of {', '.join(WINDOWS)}, or level,width.")
    flags.DEFINE_enum("plane", "axial", PLANES, "Slice direction of a NIfTI volume.")
    flags.DEFINE_integer(
        "index", None, "Slice of a NIfTI volume or frame of a DICOM file; the middle one if not given."
    )
    run_cli(main)
