"""The generated phantoms: exact, reproducible, and as hard as they say."""

import collections
import functools
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from data import phantoms
from medp_clip_jax import records


@functools.cache
def sample(count=700, size=64, split="train"):
    return tuple(phantoms.phantom_examples(split, count, seed=5, size=size))


def pixels(example):
    return np.asarray(Image.open(io.BytesIO(example.image)))


def masks(example):
    return {r.label: records.decode_mask(r.rle, example.height, example.width).astype(bool) for r in example.regions}


def centre(mask):
    rows, columns = np.nonzero(mask)
    return np.array((columns.mean(), rows.mean()))


def crop(example, region, side=10):
    """The region's box with its 25 % margin, as a crop baseline sees it, as a vector."""
    x0, y0, x1, y1 = region.box
    across, down = (x1 - x0) * phantoms.CROP_MARGIN, (y1 - y0) * phantoms.CROP_MARGIN
    box = np.clip((x0 - across, y0 - down, x1 + across, y1 + down), 0, example.width)
    picture = Image.fromarray(pixels(example)).resize((side, side), Image.Resampling.BILINEAR, box=tuple(box))
    return np.asarray(picture, np.float32).ravel() / 255


def test_an_example_depends_on_seed_split_and_index_alone():
    longer = list(phantoms.phantom_examples("train", 6, seed=3, size=64))
    assert list(phantoms.phantom_examples("train", 4, seed=3, size=64)) == longer[:4]
    others = [*phantoms.phantom_examples("train", 6, seed=4), *phantoms.phantom_examples("test", 6, seed=3)]
    assert len({example.image for example in [*longer, *others]}) == 18
    assert len({example.image_id for example in [*longer, *others]}) == 18


@pytest.mark.parametrize("size", [48, 64, 100, 256])
def test_every_region_is_exact_at_every_size(size):
    for example in phantoms.phantom_examples("val", 12, seed=1, size=size):
        assert pixels(example).shape == (size, size) == (example.height, example.width)
        assert phantoms.FEWEST_REGIONS <= len(example.regions) <= phantoms.MOST_REGIONS
        assert len({region.label for region in example.regions}) == len(example.regions)
        assert {*example.image_labels} == {r.label for r in example.regions} & {*phantoms.FINDING_WEIGHT}
        cover = np.zeros((size, size), int)
        for region, mask in zip(example.regions, masks(example).values(), strict=True):
            cover += mask
            rows, columns = np.nonzero(mask)
            assert region.area == len(rows) > 0
            assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert cover.max() == 1  # visible masks never overlap


@pytest.mark.parametrize("size", [47, 257, 0])
def test_a_size_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(ValueError, match=f"48 to 256 pixels, got {size}"):
        next(phantoms.phantom_examples("train", 1, size=size))


def test_all_classes_and_modalities_occur_and_most_regions_are_small():
    seen = collections.Counter(region.label for example in sample() for region in example.regions)
    assert set(seen) == set(phantoms.CLASSES) and len(seen) >= 14
    assert min(seen.values()) >= 0.1 * len(sample())
    assert set(collections.Counter(example.modality for example in sample())) == set(phantoms.MODALITIES)
    areas = [region.area for example in sample() for region in example.regions]
    assert np.mean(np.array(areas) < 64) > 0.55


def test_sides_follow_the_patient_and_half_of_the_images_are_mirrored():
    mirrored, checked = [], 0
    for example in sample():
        shown = {label: centre(mask) for label, mask in masks(example).items()}
        signs = [
            np.sign(shown[left][0] - shown[right][0])
            for left, right in [("kidney_left", "kidney_right"), ("lung_left", "lung_right"), ("spleen", "liver"),
                                ("kidney_left", "liver"), ("lung_left", "liver"), ("heart", "lung_right"),
                                ("aorta", "inferior_vena_cava"), ("stomach", "kidney_right")]
            if left in shown and right in shown
        ]  # fmt: skip
        if signs:
            assert len(set(signs)) == 1, example.image_id
            mirrored.append(signs[0] < 0)
            checked += len(signs) > 1
    assert checked > 80
    assert 0.4 < np.mean(mirrored) < 0.6


def test_lesions_lie_in_the_organ_that_names_them():
    checked = 0
    for example in sample():
        shown = masks(example)
        for lesion, hosts in phantoms.LESION_HOSTS.items():
            if lesion not in shown:
                continue
            x, y = centre(shown[lesion])
            others = [host for others in phantoms.LESION_HOSTS.values() for host in others if host not in hosts]
            inside = [host for host in shown if _around(shown[host], x, y)]
            assert not set(inside) & set(others)
            checked += bool(set(inside) & set(hosts))
    assert checked > 100


def _around(mask, x, y):
    """Whether the mask's row and column spans through (x, y) enclose that point."""
    row, column = np.flatnonzero(mask[round(y)]), np.flatnonzero(mask[:, round(x)])
    spans = len(row) and len(column)
    return bool(spans and row[0] <= x <= row[-1] and column[0] <= y <= column[-1])


@pytest.mark.parametrize("twins", phantoms.CONTEXT_TWINS)
def test_a_crop_cannot_tell_twins_apart(twins):
    rows = [(crop(e, r), twins.index(r.label)) for e in sample() for r in e.regions if r.label in twins]
    features, labels = np.stack([row[0] for row in rows]), np.array([row[1] for row in rows])
    chance = np.bincount(labels).max() / len(labels)
    error = np.sqrt(chance * (1 - chance) / len(labels))
    for model in (LogisticRegression(C=0.1, max_iter=200), KNeighborsClassifier(9)):
        score = cross_val_score(model, features, labels, cv=4).mean()
        assert score < chance + 4 * error, (twins, model, score)


def test_lesion_crops_are_the_same_picture_whatever_the_host(monkeypatch):
    """Without noise, every pixel of a lesion's box with its margin is blob or halo, at both ends of the size range."""
    monkeypatch.setattr(phantoms, "_develop", lambda rng, grey, modality: np.round(grey * 255).astype(np.uint8))
    found = 0
    for size in (48, 64, 160):
        for example in phantoms.phantom_examples("val", 60, seed=2, size=size):
            picture = pixels(example).astype(float)
            for region in example.regions:
                if region.label not in phantoms.LESION_HOSTS:
                    continue
                x0, y0, x1, y1 = region.box
                across, down = (x1 - x0) * phantoms.CROP_MARGIN, (y1 - y0) * phantoms.CROP_MARGIN
                rows, columns = slice(round(y0 - down), round(y1 + down)), slice(round(x0 - across), round(x1 + across))
                rim = np.ones((size, size), bool)
                rim[int(y0) - 1 : int(y1) + 1, int(x0) - 1 : int(x1) + 1] = False
                halo = picture[rows, columns][rim[rows, columns]]
                assert np.ptp(halo) <= 1 if halo.size else True, (size, example.image_id, region.label)
                found += 1
    assert found > 100


def test_findings_stand_out_from_their_hosts_by_construction():
    hosts = {**phantoms.HOSTS, **dict.fromkeys(phantoms.LESION_HOSTS, ("halo",))}
    for finding, names in hosts.items():
        grey = phantoms.GREY["lesion" if finding in phantoms.LESION_HOSTS else finding]
        for name in names:
            host = phantoms.GREY[name.removesuffix("_left").removesuffix("_right")]
            assert min(abs(a - b) for a, b in zip(grey, host, strict=True)) >= 0.3, (finding, name)
    for organ in ("lung", "heart", "liver", "stomach", "spleen", "vessel", "urinary_bladder", "trachea", "bone"):
        pairs = zip(phantoms.GREY[organ], phantoms.GREY["body"], strict=True)
        assert min(abs(a - b) for a, b in pairs) >= 0.14, organ
