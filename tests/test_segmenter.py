"""The mask decoder, its simulated clicks and its losses, on a model of a few thousand parameters."""

import functools

import click_cases
import jax
import jax.numpy as jnp
import model_cases as cases
import numpy as np
import pytest
from scipy import ndimage

from configs import common
from medp_clip_jax import api, click_training, clicks
from medp_clip_jax.config import validate
from medp_clip_jax.errors import InputError
from medp_clip_jax.mask_layout import BOX_ONLY, MASK
from medp_clip_jax.models import segmenter
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.models.mask_inputs import by_patch
from medp_clip_jax.models.vit import Images
from medp_clip_jax.prompts import RegionPrompts
from medp_clip_jax.step import init_params
from medp_clip_jax.targets import box_map

pytestmark = pytest.mark.xdist_group("compiled segmenter")
SIDE = 16  # of the masks


@functools.lru_cache
def model():
    config = cases.small_config()
    config.segmenter.update(width=16, depth=1, heads=2, stride=8, detail=8)
    return api.Model(config)


@functools.lru_cache
def params():
    return jax.jit(functools.partial(init_params, model().module, 0))()


@functools.lru_cache
def features():
    images = Images(cases.random_images(np.random.default_rng(0), 2), np.float32([[0, 0, 1, 1], [0, 0.25, 1, 0.75]]))
    return model().encode_image(params(), images)


def prompts(seed: int = 1, regions: int = 4):
    return cases.random_prompts(np.random.default_rng(seed), 2, regions)


def test_without_a_decoder_nothing_changes():
    plain = MedPCLIP(cases.small_config())
    fresh = jax.jit(functools.partial(init_params, plain, 0))()
    assert set(params()) - set(fresh) == {"segmenter"}
    shared = {name: part for name, part in params().items() if name != "segmenter"}
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), fresh, shared))
    with pytest.raises(InputError, match="no mask decoder"):
        plain.apply({"params": fresh}, features(), prompts(), method="segment")


def test_segment_leaves_region_and_image_embeddings_as_they_are():
    before = model().encode_regions(params(), features(), prompts())
    found = model().segment(params(), features(), prompts())
    assert np.array_equal(before, model().encode_regions(params(), features(), prompts()))
    assert found.masks.shape == (2, 4, 64, 64) and found.logits.shape == (2, 4, SIDE, SIDE)
    assert ((found.iou > 0) & (found.iou < 1)).all() and ((found.present > 0) & (found.present < 1)).all()
    assert np.allclose(np.linalg.norm(found.embedding, axis=-1), 1, atol=1e-5)


def test_masks_of_a_region_do_not_depend_on_other_regions():
    together = model().segment(params(), features(), prompts())
    order = np.array([2, 0, 3, 1])
    turned = model().segment(params(), features(), cases.take_regions(prompts(), order))
    np.testing.assert_allclose(turned.logits, together.logits[:, order], atol=2e-4)
    np.testing.assert_allclose(turned.embedding, together.embedding[:, order], atol=2e-5)


def test_previous_logits_matter_and_zeros_are_none():
    found = model().segment(params(), features(), prompts())
    same = model().segment(params(), features(), prompts(), found.replace(logits=jnp.zeros_like(found.logits)))
    plain = ~np.asarray(segmenter.ambiguous(prompts()))  # a correction is no single click any more
    assert plain.any() and same.candidates.shape[2] == 0
    np.testing.assert_allclose(same.logits[plain], found.logits[plain], atol=2e-4)
    again = model().segment(params(), features(), prompts(), found)
    assert np.abs(again.logits - found.logits).max() > 1e-2


def test_an_answer_begins_with_what_was_given():
    mute_layers = {name: jax.tree.map(jnp.zeros_like, params()["segmenter"][name]) for name in ("weights", "edges")}
    silent = params()["segmenter"] | mute_layers
    mute = params() | {"segmenter": silent}
    asked = RegionPrompts.none(2, 1)
    first = model().segment(mute, features(), asked)
    assert not first.logits.any()
    last = first.replace(logits=jnp.linspace(-9, 9, SIDE * SIDE).reshape(1, 1, SIDE, SIDE).repeat(2, 0))
    again = model().segment(mute, features(), asked, last)
    np.testing.assert_allclose(again.logits, jnp.clip(last.logits, -segmenter.START, segmenter.START), atol=1e-6)
    cell = (np.array([[5, 3], [9, 12]]) + 0.5) / SIDE  # (x, y) on the canvas
    clicked = asked.replace(points=cell[None, None].repeat(2, 0), point_labels=np.int32([[[1, 0]]]).repeat(2, 0))
    shown = np.asarray(model().segment(mute, features(), clicked).logits)[0, 0]  # this image fills the canvas
    strength = float(silent["obeyed"])
    assert shown[3, 5] == pytest.approx(strength, abs=1e-3) and shown[12, 9] == pytest.approx(-strength, abs=1e-3)
    assert shown.argmax() == 3 * SIDE + 5 and shown.argmin() == 12 * SIDE + 9
    assert np.abs(shown[:, 15]).max() < 1e-2 and shown[3, 6] == pytest.approx(strength * np.exp(-0.5), rel=1e-3)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[4:12, 2:10] = True
    marked = np.where(inside, 1.0, -1.0)
    boxed = asked.replace(
        boxes=np.float32([2, 4, 10, 12]).reshape(1, 1, 4).repeat(2, 0) / SIDE, box_valid=np.array([[True]] * 2)
    )
    masked = asked.replace(masks=inside[None, None].repeat(2, 0).astype(np.float32), mask_valid=np.array([[True]] * 2))
    for given, strength in zip((boxed, masked), silent["given"], strict=True):
        begun = np.asarray(model().segment(mute, features(), given).logits)[0, 0]
        np.testing.assert_allclose(begun, float(strength) * marked, atol=1e-4)
    again = model().segment(mute, features(), masked, last)  # the last answer takes the mask's place
    np.testing.assert_allclose(again.logits, jnp.clip(last.logits, -segmenter.START, segmenter.START), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "patch", "stride"), [(224, 14, 4), (224, 16, 4), (336, 14, 4), (64, 8, 2), (224, 32, 8)]
)
def test_any_patch_that_the_configuration_accepts_can_be_decoded(size, patch, stride):
    made = common.get_config()
    made.workdir, made.model = "run", cases.small_config(size=size, patch=patch)
    made.model.segmenter.update(width=16, depth=1, heads=2, stride=stride, detail=8)
    made.input.label_context = 8
    validate(made)
    other = MedPCLIP(made.model)
    fresh = jax.eval_shape(functools.partial(init_params, other, 0))

    def found(params):
        features = other.apply({"params": params}, jnp.zeros((1, size, size, 3)), method="encode_image")
        return other.apply({"params": params}, features, RegionPrompts.none(1, 2), method="segment")

    assert jax.eval_shape(found, fresh).logits.shape == (1, 2, 2 * size // stride, 2 * size // stride)


def test_maps_are_averaged_over_patches_that_cut_cells():
    maps = np.random.default_rng(0).normal(size=(1, 2, 7, 7, 3)).astype(np.float32)
    found = by_patch(jnp.asarray(maps), 2)  # patches of 3.5 cells
    shares = np.zeros((2, 7))
    shares[0, :3], shares[0, 3], shares[1, 3], shares[1, 4:] = 1, 0.5, 0.5, 1
    expected = np.einsum("yi,xj,bkijc->bkyxc", shares / 3.5, shares / 3.5, maps).reshape(1, 2, 4, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_correction_asks_the_decoder_alone():
    found = model().segment(params(), features(), prompts())
    towers = {name: part for name, part in params().items() if name != "segmenter"}
    spoiled = params() | jax.tree.map(jnp.zeros_like, towers)
    again = model().segment(spoiled, features(), prompts(2), found, False)
    assert again.embedding is None and np.array_equal(again.token, found.token)
    expected = model().segment(params(), features(), prompts(2), found)
    assert np.array_equal(again.logits, expected.logits)
    named = model().encode_masks(params(), features(), prompts(2), again.logits)
    np.testing.assert_allclose(named, expected.embedding, atol=2e-6)


def test_an_empty_mask_is_named_by_its_prompts():
    nothing = -jnp.ones((2, 4, SIDE, SIDE))
    asked = prompts()
    named = model().encode_masks(params(), features(), asked, nothing)
    by_mask = np.asarray(asked.mask_valid)  # these are read at the resolution of the answers, the others as they are
    difference = np.abs(named - model().encode_regions(params(), features(), asked)).max(-1)
    assert (~by_mask).any() and difference[~by_mask].max() < 2e-6


@pytest.mark.slow  # compiles two more decoders
@pytest.mark.parametrize("kind", ["unet", "sam"])
def test_decoders_to_compare_with_are_asked_and_trained_alike(kind):
    made = config("box")
    made.model.segmenter.kind = kind
    other = MedPCLIP(made.model)
    fresh = jax.jit(functools.partial(init_params, other, 0))()
    token = jnp.zeros((2, 4, made.model.image.width))  # neither reads it
    looked = other.apply({"params": fresh}, features(), method="look")
    decode = jax.jit(functools.partial(other.apply, method="decode"))
    found = decode({"params": fresh}, looked, prompts(), token)
    assert found.masks.shape == (2, 4, 4, SIDE, SIDE) and found.iou.shape == (2, 4, 4) and found.present.shape == (2, 4)
    order = np.array([2, 0, 3, 1])
    turned = decode({"params": fresh}, looked, cases.take_regions(prompts(), order), token)
    np.testing.assert_allclose(turned.masks, found.masks[:, order], atol=2e-4)
    again = decode({"params": fresh}, looked, prompts(), token, found.masks[:, :, 0])
    assert again.masks.shape[2] == 1 and np.abs(again.masks - found.masks[:, :, :1]).max() > 1e-3

    def loss(params):
        keys = jax.random.split(jax.random.key(0), 2)
        parts = click_training.click_losses(other, params, made, features(), *targets(), keys)
        return click_training.total(parts, targets()[1], made.segment)[0]

    gradients = jax.jit(jax.grad(loss))(fresh)["segmenter"]
    assert not _silent(gradients)


def _silent(gradients):
    """Paths without any gradient, but for biases: those of keys have none."""
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    return [name for path, leaf in leaves if not leaf.any() and "bias" not in (name := jax.tree_util.keystr(path))]


def test_erosion_distance_is_scipys_chessboard_distance():
    for number in range(20):
        mask = click_cases.blob(np.random.default_rng(number), 24)
        exact = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[1:-1, 1:-1]
        assert np.array_equal(clicks.erosion_distance(jnp.asarray(mask), 24), exact)
        assert np.array_equal(clicks.erosion_distance(jnp.asarray(mask), 3), np.minimum(exact, 3))
        euclidean = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        assert (exact <= euclidean + 1e-9).all() and (euclidean <= np.sqrt(2) * exact + 1e-9).all()


def test_clicks_fall_into_the_interior_of_the_larger_error():
    cases_ = [(truth, answers[1]) for truth, answers in click_cases.mask_pairs(12, 2)]
    truth, answer = (np.stack(part).reshape(4, 3, 64, 64) for part in zip(*cases_, strict=True))
    answer[0, 0] = truth[0, 0]  # nothing is wrong here
    place, label = jax.jit(clicks.next_click)(jax.random.split(jax.random.key(0), 4), truth, answer)
    for b, k in np.ndindex(4, 3):
        missed, extra = truth[b, k] & ~answer[b, k], answer[b, k] & ~truth[b, k]
        depth = [ndimage.distance_transform_cdt(np.pad(part, 1), "chessboard")[1:-1, 1:-1] for part in (extra, missed)]
        depth = [np.minimum(part, clicks.EROSIONS) for part in depth]
        if not (missed | extra).any():
            assert label[b, k] == -1
            continue
        assert label[b, k] == int(depth[1].max() > depth[0].max())
        x, y = np.floor(np.asarray(place[b, k]) * 64).astype(int)
        assert 2 * depth[int(label[b, k])][y, x] >= depth[int(label[b, k])].max() > 0


def config(first: str = "", **settings):
    made = common.get_config()
    if first:
        made.segment.first.update({kind: float(kind == first) for kind in clicks.FIRST})
    made.model = cases.small_config()
    made.model.segmenter.update(width=16, depth=1, heads=2, stride=8, detail=8)
    made.segment.update({"regions": 3, "rounds": 2, "absent": 0.0, **settings})
    return made


def targets():
    target = np.zeros((2, 3, SIDE, SIDE), np.uint8)
    target[:, 0, 5:9, 3:9], target[:, 1, 6:12, 6:12] = 255, 255
    kind = np.array([[MASK, BOX_ONLY, 0]] * 2, np.int32)
    annotated = (target > 0).any(1)
    annotated[1, :4] = annotated[1, 12:] = True  # the empty canvas of the second image
    return target, kind, annotated


@functools.lru_cache
def losses(detach: bool, absent: float):
    made = config(detach=detach, absent=absent)
    keys = jax.random.split(jax.random.key(3), 2)

    def loss(params):
        parts = click_training.click_losses(model().module, params, made, features(), *targets(), keys)
        return click_training.total(parts, targets()[1], made.segment)[0], parts

    return jax.jit(jax.grad(loss, has_aux=True))(params())


def test_masks_boxes_and_padding_are_each_supervised_by_their_own_terms():
    gradient, parts = losses(False, 0.0)
    for name in ("focal", "dice", "iou"):
        assert (parts[name][:, 0] > 0).all() and not parts[name][:, 1:].any()
    assert (parts["projection"][:, 1] > 0).all() and not parts["projection"][:, [0, 2]].any()
    assert (parts["present"][:, :2] > 0).all() and not parts["present"][:, 2].any()
    assert parts["counted"].tolist() == [[True, False, False]] * 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert not _silent(gradient["segmenter"])
    assert any(leaf.any() for leaf in jax.tree.leaves(gradient["fusion"]))


def test_detached_training_sends_nothing_into_the_towers_and_absent_objects_have_no_mask_loss():
    gradient, parts = losses(True, 1.0)
    assert not any(
        leaf.any() for name, part in gradient.items() if name != "segmenter" for leaf in jax.tree.leaves(part)
    )
    assert not parts["focal"].any() and not parts["projection"].any() and not parts["counted"].any()
    assert (parts["present"][:, :2] > 0).all()


def test_first_prompts_mark_their_region_and_absent_ones_nothing_annotated():
    target, kind, annotated = targets()
    made = clicks.Targets(jnp.asarray(target > 0), jnp.asarray(kind), jnp.zeros(kind.shape, bool))
    keys = jax.random.split(jax.random.key(0), 2)
    rectangle = jnp.float32([[0, 0, 1, 1], [0, 0.25, 1, 0.75]])
    some, marked = clicks.with_absent(keys, made, jnp.asarray(~annotated), 1.0)
    assert not some.mask.any() and not (marked & annotated[:, None]).any()
    assert marked.any((2, 3)).tolist() == [[True, True, False]] * 2
    asked = clicks.first_prompts(keys, made, jnp.zeros_like(made.mask), rectangle, config("point", several=0.0))
    assert (asked.point_labels[:, 0] >= 0).sum(-1).tolist() == [1, 1] and asked.box_valid[:, 1].all()
    asked = clicks.first_prompts(keys, made, jnp.zeros_like(made.mask), rectangle, config("box"))
    np.testing.assert_allclose(asked.boxes[0, 0], np.array([3, 5, 9, 9]) / 16, atol=1e-6)
    np.testing.assert_allclose(asked.boxes[1, 0], [3 / 16, (5 / 16 - 0.25) * 2, 9 / 16, (9 / 16 - 0.25) * 2], atol=1e-6)


def test_box_maps_are_exact_areas():
    area = box_map((1, 2, 5, 4), (0, 0, 8, 8), 4)
    assert area.tolist() == [[0, 0, 0, 0], [128, 255, 128, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
