"""COCO JSON: regions survive in every notation, what cannot be used is one line, what sticks out is clipped."""

import json
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from data.build import build_corpus
from data.report import Report
from data.sources import regions
from data.sources.coco import open_coco
from data.sources.coco_shapes import read_polygons, read_rle, read_shape
from data.sources.orientation import turn_mask
from data.sources.pictures import BadRecord, Picture
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image, decode_mask
from tests.sources_cases import (
    HEIGHT,
    ONTOLOGY,
    WIDTH,
    assert_marker_on_the_left,
    examples,
    marked,
    mask_of,
    opened,
    save,
    told,
)

RECTANGLE = [2, 4, 9, 4, 9, 10, 2, 10]  # the marker's corners


def write(folder, annotations, images=1, name="annotations.json", **fields):
    for i in range(images):
        save(folder / f"images/{i}.png", marked(i)[0])
    listed = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in range(images)]
    data = {
        "info": {"description": "made up"},
        "licenses": [{"id": 1, "name": "CC0"}],
        "images": listed,
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 1, "iscrowd": 0, "area": 1, **annotation}
            for i, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 1, "name": "liver"}, {"id": 2, "name": "spleen"}],
    } | fields
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(data))
    return folder


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def uncompressed(mask):
    flat = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat, prepend=0, append=-1))
    counts = np.diff(ends, prepend=0).tolist() if ends[0] else [0, *np.diff(ends).tolist()]
    return {"size": list(mask.shape), "counts": counts}


def test_all_notations_of_a_region_give_the_same_mask_and_box(tmp_path):
    mask = marked()[1]
    box = [2, 4, 7, 6]
    notations = [[RECTANGLE], RECTANGLE, [[[2, 4], [9, 4], [9, 10], [2, 10]]], compressed(mask), uncompressed(mask)]
    folder = write(tmp_path / "set", [{"segmentation": s, "bbox": box} for s in notations] + [{"bbox": box}])
    example = examples(opened(open_coco, folder))[0]
    *masks, alone = example.regions
    for region in masks:
        assert_marker_on_the_left(example, region)
        assert region == masks[0] and region.area == 42
    assert alone.box == masks[0].box == (2, 4, 9, 10) and not alone.rle
    assert (example.image_id, example.group, example.dataset) == ("0.png", "0.png", "set")


@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 0.98]), st.integers(1, 40), st.integers(1, 40))
def test_run_lengths_round_trip(seed, share, height, width):
    mask = np.random.default_rng(seed).random((height, width)) < share
    picture = Picture(b"", width, height)
    if not mask.any():
        return
    for notation in (compressed(mask), uncompressed(mask)):
        counts, size = read_rle(notation, picture)
        region = regions.of_rle("liver", counts, height, width, "")
        assert size == (width, height)
        np.testing.assert_array_equal(decode_mask(region.rle, height, width), mask)
        x0, y0, x1, y1 = map(int, region.box)
        assert regions.tight_box(mask) == region.box and region.area == mask.sum()
        assert mask[y0:y1, x0:x1].sum() == mask.sum()


def inside_even_odd(points):
    """Which pixel centres lie inside a polygon, by counting crossings to their left, in exact arithmetic."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        between = (y0 <= y) != (y1 <= y)
        if between.any():
            inside ^= between & (x0 + (y - y0) / (y1 - y0) * (x1 - x0) < x)
    return inside


def reaches_in(points):
    """Whether any side of a polygon meets the image: the part of the side between all four borders is not empty."""
    step, limit = np.roll(points, -1, axis=0) - points, np.array([WIDTH, HEIGHT])
    along = np.where(step, step, 1)
    first, second = -points / along, (limit - points) / along
    between = (points >= 0) & (points <= limit)  # what decides where a side is parallel to a border
    enters = np.where(step, np.minimum(first, second), np.where(between, -np.inf, np.inf))
    leaves = np.where(step, np.maximum(first, second), np.where(between, np.inf, -np.inf))
    return (np.maximum(enters.max(axis=1), 0) <= np.minimum(leaves.min(axis=1), 1)).any()


def edge(mask):
    near = np.ones((3, 3), bool)
    return ndimage.binary_dilation(mask, near) & ~ndimage.binary_erosion(mask, near, border_value=1)


CORNERS = st.tuples(st.integers(-60, 100), st.integers(-60, 100))


@hypothesis.given(st.lists(CORNERS, min_size=3, max_size=8), st.sampled_from([0, 0, -1000, 10**5, 10**9]))
@hypothesis.example([(0, 0), (80, -31), (81, 1), (80, -31)], -1000)  # its box alone reaches into the image
def test_polygons_are_clipped_however_far_they_reach(points, far):
    points = np.array(points, float)
    points[0] += far  # a corner as far as a broken export puts it
    high, low = points.max(axis=0), points.min(axis=0)
    sticks_out = (low < -1).any() or (high > [WIDTH + 1, HEIGHT + 1]).any()
    try:
        counts, change = read_polygons([points.ravel().tolist()], WIDTH, HEIGHT)
    except BadRecord:
        beside = (low >= [WIDTH, HEIGHT]).any() or (high <= 0).any()
        assert beside or not (reaches_in(points) or inside_even_odd(points).any())
        return
    assert bool(change) == sticks_out
    mask, expected = decode_mask(counts, HEIGHT, WIDTH), inside_even_odd(points)
    assert not (mask ^ expected)[~(edge(mask) | edge(expected))].any()
    if not sticks_out:
        theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH)))
        np.testing.assert_array_equal(mask, theirs.astype(bool))


def bad_rle(**changes):
    return compressed(marked()[1]) | changes


BAD = {
    "polygon outside": ([[50, 5, 60, 5, 60, 9]], "polygon outside the image"),
    "two points": ([[2, 4, 9, 10]], "polygon of fewer than three points"),
    "one number too many": ([[*RECTANGLE, 3]], "not a polygon"),
    "not finite": ([[2, 4, 9, float("nan"), 9, 10]], "not a polygon"),
    "text": ([["a", "b", "c", "d", "e", "f"]], "not a polygon"),
    "thinner than a pixel": ([[2, 4, 2, 4, 2, 4]], "empty mask"),
    "of another size": (bad_rle(size=[HEIGHT + 1, WIDTH]), "mask of another size"),
    "sides exchanged": (bad_rle(size=[WIDTH, HEIGHT]), "mask of another size"),
    "size is text": (bad_rle(size="30x40"), "not a segmentation"),
    "damaged run lengths": (bad_rle(counts="~~~"), "damaged mask"),
    "not ASCII": (bad_rle(counts="é"), "damaged mask"),
    "too short": ({"size": [HEIGHT, WIDTH], "counts": [5, 5]}, "damaged mask"),
    "negative": ({"size": [HEIGHT, WIDTH], "counts": [-5, 1205]}, "damaged mask"),
    "no counts": ({"size": [HEIGHT, WIDTH]}, "not a segmentation"),
    "empty mask": ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, "empty mask"),
    "a number": (7, "not a segmentation"),
    "empty annotation": ([], "neither mask nor box"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_region_is_one_line_and_left_out(name, tmp_path, capsys):
    segmentation, reason = BAD[name]
    good = {"segmentation": [RECTANGLE]}
    folder = write(tmp_path / "set", [good, {"segmentation": segmentation, "id": 77}, {**good, "category_id": 2}])
    found = examples(opened(open_coco, folder))
    assert [region.label for region in found[0].regions] == ["liver", "spleen"]
    (line,) = told(capsys)
    assert re.search(rf"^skipped: .*annotations\.json: image 0, annotation 77, liver: {reason}: ", line), line
    with pytest.raises(InputError, match=reason):
        examples(opened(open_coco, folder, report=Report(strict=True)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats() | st.sampled_from(["", "counts", "0", "abc"]),
    lambda inner: (
        st.lists(inner, max_size=7)
        | st.dictionaries(st.sampled_from(["size", "counts", "id", "name", "image_id", "category_id", "bbox"]), inner)
    ),
    max_leaves=12,
)


@hypothesis.given(JSON | st.fixed_dictionaries({"size": st.just([HEIGHT, WIDTH]), "counts": JSON}), JSON)
def test_whatever_stands_for_a_region_gives_one_or_a_reason(segmentation, box):
    picture = Picture(b"", WIDTH, HEIGHT)
    try:
        region, _ = read_shape(segmentation, box, "liver", picture, None, "stored")
    except BadRecord as bad:
        assert "\n" not in str(bad)
    else:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT and region.area > 0


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.dictionaries(st.sampled_from(["images", "annotations", "categories", "info", "licenses"]), JSON))
def test_whatever_a_file_holds_it_is_told_in_words(tmp_path, damage):
    folder = write(tmp_path / "set", [{"segmentation": [RECTANGLE]}])
    path = folder / "annotations.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    try:
        examples(opened(open_coco, folder))
    except InputError as error:
        assert "\n" not in str(error)


BAD_TABLES = {
    "class absent": ([{"bbox": [1, 1, 5, 5], "category_id": 9}], "annotation 0: class absent from the table", 0),
    "image absent": ([{"bbox": [1, 1, 5, 5], "image_id": 9}], "annotation 0: region of an unknown image", 0),
    "box outside": ([{"bbox": [1, 1, 5, 50]}], "annotation 0, liver: box outside the image", 0),
    "box apart": ([{"segmentation": [RECTANGLE], "bbox": [20, 20, 5, 5]}], "box and mask apart", 0),
    "not a box": ([{"bbox": [1, 2, 3]}], "not a box", 0),
    "same twice": ([{"bbox": [1, 1, 5, 5], "id": 3}] * 2, "annotation 3: annotation given twice", 1),
    "id twice": (
        [{"bbox": [1, 1, 5, 5], "id": 3}, {"bbox": [2, 2, 5, 5], "id": 3}],
        "warning: .*its id is used twice: both regions are kept",
        2,
    ),
    "not an object": ([{"bbox": [1, 1, 5, 5]}], None, 1),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_row_is_one_line(name, tmp_path, capsys):
    annotations, message, left = BAD_TABLES[name]
    example = examples(opened(open_coco, write(tmp_path / "set", annotations)))[0]
    lines = told(capsys)
    assert len(example.regions) == left
    assert len(lines) == (message is not None) and (message is None or re.search(message, lines[0])), lines


def test_bad_images_are_told_and_the_others_stay(tmp_path, capsys):
    image = {"file_name": "0.png", "width": WIDTH, "height": HEIGHT}
    listed = [
        {"id": 0, **image},
        {"id": 0, **image, "file_name": "other.png"},
        {"id": 1, "width": 3},
        {"file_name": "0.png"},
        {"id": 2, **image, "file_name": "none.png"},
        {"id": 3, **image, "file_name": "1.png", "width": 41},
        {"id": 4, **image},
    ]
    folder = write(tmp_path / "set", [{"bbox": [1, 1, 5, 5]}], images=2)
    data = json.loads((folder / "annotations.json").read_text()) | {"images": listed}
    (folder / "annotations.json").write_text(json.dumps(data))
    (example,) = examples(opened(open_coco, folder))
    assert len(example.regions) == 1
    reasons = ["image_id used twice", "no image path", "no image_id", "image_id used twice", "missing image"]
    for line, reason in zip(told(capsys), [*reasons, "image of another size"], strict=True):
        assert line.startswith("skipped: ") and reason in line


def test_a_polygon_that_sticks_out_is_clipped_and_told(tmp_path, capsys):
    folder = write(tmp_path / "set", [{"segmentation": [[-20, 4, 9, 4, 9, 10, -20, 10], [1, 1, 2, 2]]}])
    (example,) = examples(opened(open_coco, folder))
    assert example.regions[0].box == (0, 4, 9, 10)
    (line,) = told(capsys)
    assert line.startswith("warning: ") and "clipped to the image, a polygon of 2 points left out" in line


def test_crowds_are_kept_or_dropped(tmp_path):
    crowd = {"segmentation": compressed(marked()[1]), "iscrowd": 1}
    folder = write(tmp_path / "set", [crowd, {"bbox": [1, 1, 5, 5]}])
    assert len(examples(opened(open_coco, folder))[0].regions) == 2
    assert len(examples(opened(open_coco, folder, crowd="drop"))[0].regions) == 1
    with pytest.raises(InputError, match="--option=crowd=maybe: expected one of keep, drop"):
        opened(open_coco, folder, crowd="maybe")


def test_splits_and_groups_of_the_usual_layouts(tmp_path):
    folder = tmp_path / "set"
    for split in ("train", "valid", "test"):
        write(folder / split, [{"bbox": [1, 1, 5, 5]}], name="_annotations.coco.json")
        (folder / split / "images/0.png").rename(folder / split / f"{split}-7_0.png")
        path = folder / split / "_annotations.coco.json"
        path.write_text(path.read_text().replace('"0.png"', f'"{split}-7_0.png"'))
    source = opened(open_coco, folder, only="", group=r"^(\w+-\d+)_")
    assert sorted(source.splits) == ["test", "train", "val"]
    assert [example.group for example in examples(source, "val")] == ["valid-7"]
    official = tmp_path / "official"
    write(official, [{"bbox": [1, 1, 5, 5]}], name="annotations/instances_val2017.json")
    write(official, [{"caption": "words"}], name="annotations/captions_val2017.json")
    (official / "images").rename(official / "val2017")
    assert list(opened(open_coco, official, only="").splits) == ["val"]
    (captioned,) = examples(opened(open_coco, official / "annotations/captions_val2017.json", only=""), "val")
    assert captioned.caption == "words" and captioned.regions == ()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("frame", ["stored", "shown"])
def test_annotations_turn_with_the_image(tmp_path, orientation, frame):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels, mask = marked()
    folder = write(tmp_path / "set", [])
    save(folder / "images/0.png", Image.fromarray(pixels), exif=exif)
    sideways = orientation >= 5
    if frame == "shown":  # annotated in a viewer that applies EXIF: the marker as it is seen there
        mask = turn_mask(mask, orientation)
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    x0, y0, x1, y1 = (int(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    polygon = [x0, y0, x1, y0, x1, y1, x0, y1]
    shapes = [{"segmentation": compressed(mask)}, {"segmentation": [polygon]}, {"bbox": [x0, y0, x1 - x0, y1 - y0]}]
    sizes = {"width": width, "height": height}
    image = {"id": 0, "file_name": "0.png"}
    for stated, options in (({}, {"exif": frame}), (sizes, {}), (sizes, {"exif": frame})):
        if not sideways and not options:
            continue  # the size says nothing where turning keeps it
        write(folder, shapes, images=0)
        data = json.loads((folder / "annotations.json").read_text()) | {"images": [image | stated]}
        (folder / "annotations.json").write_text(json.dumps(data))
        (example,) = examples(opened(open_coco, folder, **options))
        assert (example.width, example.height) == ((HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT))
        bright = decode_image(example.image)[..., 0] > 200
        for region in example.regions[:2]:
            np.testing.assert_array_equal(mask_of(example, region), bright)
        assert example.regions[2].box == example.regions[0].box


def test_agrees_with_pycocotools_on_a_file_it_reads(tmp_path, capsys):
    shapes = [{"segmentation": [[3.2, 4.7, 20.1, 8.3, 11.9, 25.5]]}, {"segmentation": uncompressed(marked()[1])}]
    folder = write(tmp_path / "set", shapes)
    theirs = COCO(str(folder / "annotations.json"))
    (example,) = examples(opened(open_coco, folder))
    for region, annotation in zip(example.regions, theirs.anns.values(), strict=True):
        np.testing.assert_array_equal(mask_of(example, region), theirs.annToMask(annotation).astype(bool))


def test_unusable_files_are_one_error(tmp_path):
    folder = tmp_path / "set"
    with pytest.raises(InputError, match="no such folder or file"):
        opened(open_coco, folder)
    folder.mkdir()
    with pytest.raises(InputError, match="no JSON file there"):
        opened(open_coco, folder)
    for content, message in (
        (b"{", "not readable as JSON"),
        (b"[]", "not a COCO file"),
        (b'{"a": "\xff"}', "encoding="),
    ):
        (folder / "x.json").write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            opened(open_coco, folder)
        assert "\n" not in str(caught.value)
    (folder / "x.json").write_bytes('{"images": []}'.encode("utf-8-sig"))
    with pytest.raises(InputError, match="no image of this format"):
        opened(open_coco, folder)


def test_builds_and_stays_unchanged(tmp_path):
    folder = write(tmp_path / "set", [{"segmentation": [RECTANGLE]}], images=3)
    sources = [lambda ontology: open_coco(folder, ontology, ontology, "", Report())]
    first = build_corpus(tmp_path / "corpus", sources, ONTOLOGY, Report())
    second = build_corpus(tmp_path / "corpus", sources, ONTOLOGY, Report())
    assert first.manifest == second.manifest
    entry = first.manifest["sources"]["set"]
    assert entry["adapter"] == "coco" and entry["provenance"]["licence"] == "CC0"
    save(folder / "images/1.png", marked(9)[0])
    assert opened(open_coco, folder, only="").fingerprint != entry["fingerprint"]
