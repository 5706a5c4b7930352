"""The analytic count against XLA's own on a model without loops, and against the known cost of a ViT-L/14 pair."""

import functools

import jax
import numpy as np
import pytest

from configs import common, vitl
from medp_clip_jax.flops import StepFlops, image_tokens, mfu, peak_flops, step_flops
from medp_clip_jax.models.clip import MedPCLIP
from medp_clip_jax.optim import make_optimizer
from medp_clip_jax.step import Bank, TrainState, init_params, train_step
from tests import model_cases as cases

LABELS, BATCH, REGIONS = 40, 8, 4
WITHOUT_REGIONS = {"loss.region_to_text": 0.0, "loss.text_to_region": 0.0}


def unrolled(**changes):
    """Wide enough that products outweigh what is elementwise; one scan iteration holds all blocks, so XLA sees all."""
    config = common.get_config()
    config.model = cases.small_config(width=256, depth=2, heads=4)
    config.model.text.update(context=10, width=256, depth=2, heads=4)
    config.model.prompt.update(hidden=64, context=0.0)
    config.model.unroll = 2
    config.input.update(batch_size=BATCH, regions=REGIONS, points=3, mask_size=9, label_context=6)
    config.update_from_flattened_dict(changes)
    return config


@functools.cache
def counted(changes: tuple = ()) -> tuple[float, int]:
    """FLOPs of the lowered train step by XLA's cost model, and the number of parameters."""
    config = unrolled(**dict(changes))
    batch = cases.random_batch(np.random.default_rng(0), BATCH, REGIONS)
    bank = Bank(np.ones((LABELS, 2, 6), np.int32), np.zeros((LABELS, LABELS), bool), np.zeros(LABELS, np.float32))
    model = MedPCLIP(config.model)
    params = jax.eval_shape(functools.partial(init_params, model, 0))
    optimizer = make_optimizer(config.optim, 10, params)
    state = TrainState(jax.ShapeDtypeStruct((), np.int32), params, jax.eval_shape(optimizer.init, params))
    lowered = jax.jit(functools.partial(train_step, model, optimizer, config)).lower(state, batch, bank)
    return lowered.cost_analysis()["flops"], sum(x.size for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.remat": "dots"},
        {"model.remat": "full"},
        {"model.image.patch_drop": 0.5},
        WITHOUT_REGIONS,
        {"model.fusion": "late"},
        {"model.fusion": "pool"},
        {"model.fusion": "alpha"},
    ],
    ids=lambda changes: "-".join(f"{name.split('.')[-1]}={value}" for name, value in changes.items()) or "default",
)
def test_the_count_is_that_of_xla(changes):
    flops, parameters = counted(tuple(changes.items()))
    assert step_flops(unrolled(**changes), LABELS, parameters).hardware == pytest.approx(flops, rel=0.05)


def test_regions_cost_what_xla_says_they_cost():
    ours = step_flops(unrolled(), LABELS).model - step_flops(unrolled(**WITHOUT_REGIONS), LABELS).model
    xla = counted()[0] - counted(tuple(WITHOUT_REGIONS.items()))[0]
    assert ours == pytest.approx(xla, rel=0.06)


def test_a_pair_of_the_large_model_costs_175_gflop_and_its_regions_less_than_a_tenth():
    config = vitl.get_config()
    pairs = config.input.batch_size
    forward = step_flops(config, 1000).forward
    assert forward["image"] / pairs == pytest.approx(162.0e9, rel=1e-3)
    assert forward["text"] / pairs == pytest.approx(13.3e9, rel=1e-3)
    assert (forward["image"] + forward["text"]) / pairs == pytest.approx(175.3e9, rel=1e-3)

    with_regions = step_flops(config, 1000).hardware
    config.update_from_flattened_dict(WITHOUT_REGIONS)
    assert config.input.regions == 16
    assert step_flops(config, 1000).hardware < with_regions < 1.1 * step_flops(config, 1000).hardware


def test_training_costs_three_forward_passes_where_nothing_is_recomputed():
    flops = StepFlops({"image": 2.0, "windows": 1.0}, recompute=0.0, optimizer=0.5)
    assert flops.model == 3 * 2.0 + 1.0  # no gradient goes through the windows
    assert flops.hardware == flops.model + 0.5


def test_microbatches_embed_everything_once_more_but_the_model_flops_stay():
    whole, parts = step_flops(unrolled(), LABELS), step_flops(unrolled(**{"train.accumulate": 4}), LABELS)
    embedded = sum(value for part, value in whole.forward.items() if part not in ("labels", "losses"))
    assert parts.model == whole.model
    assert parts.hardware == whole.hardware + embedded


def test_dropped_patches_are_not_paid_for():
    model = vitl.get_config().model
    assert image_tokens(model) == 257
    model.image.patch_drop = 0.5
    assert image_tokens(model) == 129


def test_mfu_is_the_share_of_the_peak_and_unknown_where_the_peak_is():
    assert mfu(197e12, 2.0, 1, "TPU v5 lite") == 0.5
    assert mfu(8 * 989e12, 1.0, 8, "NVIDIA H100 80GB HBM3") == 1.0
    assert mfu(1e12, 1.0, 1, "cpu") is None


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("cpu", None),
        ("Some new chip", None),
    ],
)
def test_peaks_go_by_the_longest_name_that_fits(kind, peak):
    assert peak_flops(kind) == peak


def test_frozen_text_and_the_base_have_no_backward_pass():
    config = common.get_config()
    plain = step_flops(config, 50)
    config.optim.frozen = ("text",)
    frozen = step_flops(config, 50)
    labels = 3 * plain.forward["labels"]  # encoded before the first step
    assert plain.model - frozen.model == pytest.approx(2 * frozen.forward["frozen text"] + labels)
    assert frozen.forward["frozen text"] > 0
    config.loss.distill = 1.0
    held = step_flops(config, 50)
    assert held.model - frozen.model == pytest.approx(held.forward["base"]) and held.forward["base"] > 0


def test_regions_of_a_tower_without_cls_only_pass_the_pooling_head():
    config = common.get_config()
    plain = step_flops(config, 50)
    config.model.image.pool = "map"
    pooled = step_flops(config, 50)
    assert pooled.forward["regions"] < plain.forward["regions"] / 4
    config.model.text.update(tower="bert", pool="mean", projection="none")
    assert step_flops(config, 50).forward["unread"] == 0
