"""Rules of clicking and mask metrics against what the libraries of their authors answered on the same masks.

`goldens/clicks.json` holds the answers of SAM 2's `sample_one_point_from_error_center`, of the samplers of SAM-Med2D
and IMIS-Bench (400 draws each), and of MONAI 1.6's Dice, IoU, surface Dice at 2 px and 95 % Hausdorff distance.
"""

import json
import pathlib

import click_cases
import numpy as np
import pytest
from scipy import ndimage

from medp_clip_jax.evaluators import click_protocols, mask_metrics

GOLDEN = json.loads((pathlib.Path(__file__).parent / "goldens" / "clicks.json").read_text())


def test_center_clicks_are_those_of_sam2_on_200_regions_turn_by_turn():
    """Four of 800 clicks differ: where pixels lie equally deep, OpenCV's rounding in float32 chooses among them."""
    ties = 0
    for (truth, answers), clicks in zip(click_cases.mask_pairs(), GOLDEN["center"], strict=True):
        for answer, theirs in zip(answers, clicks, strict=True):
            ours = click_protocols.center(truth, answer)
            if list(ours) == theirs:
                continue
            ties += 1
            wrong = np.pad(truth & ~answer if ours[2] else answer & ~truth, 1)
            depth = np.rint(np.square(ndimage.distance_transform_edt(wrong)[1:-1, 1:-1]))  # squared, a whole number
            assert theirs[2] == ours[2] and depth[theirs[1], theirs[0]] == depth[ours[1], ours[0]] == depth.max()
    assert ties <= 4


def test_first_center_click_asks_like_the_evaluation_of_region_recognition():
    rng = np.random.default_rng(0)
    for truth, _ in click_cases.mask_pairs(20, 1):
        x, y, label = click_protocols.click("center", truth, None, rng)
        assert label == 1 and truth[y, x]


class Dice:
    """A generator that rolls what it is told."""

    def __init__(self, number: int):
        self.number = number

    def integers(self, sides: int) -> int:
        return self.number % sides

    def choice(self, sides: np.ndarray) -> int:
        return sides[self.number % len(sides)]


@pytest.mark.parametrize("protocol", ["sam_med2d", "imis"])
def test_random_clicks_come_from_the_pixels_that_their_authors_choose_from(protocol):
    """Whatever the authors' code drew, ours can draw, with the same label."""
    cases = zip(click_cases.mask_pairs(len(GOLDEN[protocol]), 2), GOLDEN[protocol], strict=True)
    for (truth, answers), (first, errors) in cases:
        for theirs, answer in ((first, None), (errors, answers[1])):
            pixels = int(truth.sum() if answer is None else (truth != answer).sum())
            ours = {click_protocols.click(protocol, truth, answer, Dice(number)) for number in range(pixels)}
            assert {tuple(click) for click in theirs} <= ours
            assert len(ours) == (pixels // 2 if protocol == "imis" and answer is None else pixels)


def test_imis_draws_only_from_the_half_nearest_to_the_centroid():
    truth = np.zeros((9, 9), bool)
    truth[4] = True
    rng = np.random.default_rng(0)
    drawn = {click_protocols.near_centroid(truth, rng)[0] for _ in range(200)}
    assert len(drawn) == 4 and max(abs(x - 4) for x in drawn) == 2


def test_metrics_are_monais():
    expected = iter(GOLDEN["metrics"])
    for truth, answers in click_cases.mask_pairs(len(GOLDEN["metrics"]) // 3):
        for answer in answers[1:]:
            nsd, hd95 = mask_metrics.nsd_hd95(answer, truth)
            ours = mask_metrics.dice(answer, truth), mask_metrics.iou(answer, truth), nsd, hd95
            assert ours == pytest.approx(next(expected), abs=1e-5)


def test_empty_masks_have_stated_scores():
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert mask_metrics.nsd_hd95(empty, full) == (0.0, 5.0) == mask_metrics.nsd_hd95(full, empty)
    assert mask_metrics.nsd_hd95(empty, empty) == (1.0, 0.0)
    assert mask_metrics.dice(empty, empty) == mask_metrics.iou(empty, empty) == 1
    assert mask_metrics.dice(empty, full) == mask_metrics.iou(full, empty) == 0


def test_distances_take_the_spacing_of_pixels():
    truth, answer = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[5:10, 5:10] = answer[5:10, 8:13] = True
    assert mask_metrics.nsd_hd95(answer, truth, 2.0, (1.0, 0.5)) == (1.0, 1.5)
