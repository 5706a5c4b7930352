"""Shapes are those of the input, forecasts and verdicts follow from the numbers, and the command as users run it."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import vitl
from launch.abstract_step import bank_shapes, batch_shapes
from launch.bounds import Load, forecast
from launch.chips import CHIPS
from launch.suggest import changes, smallest_change
from medp_clip_jax.input import train_dataset
from medp_clip_jax.labels import make_bank
from medp_clip_jax.step import Bank
from tests import tiny_corpus
from tests.sharding_goldens import GOLDENS, parameter_layout
from tests.tiny_run import ontology
from tests.tiny_step import get_config as tiny_step

ROOT = pathlib.Path(__file__).parents[1]


def check(*arguments: str, program: str = "launch.compile_check") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900
    )


def shapes(tree) -> list:
    return [
        (jax.tree_util.keystr(path), x.shape, str(x.dtype)) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    ]


@pytest.mark.parametrize("view", ["image", "crop"])
def test_the_shapes_are_those_of_the_input(view):
    config = tiny_corpus.config(view=view)
    corpus = tiny_corpus.random_corpus(a=4)
    batch = train_dataset(corpus, config, tiny_corpus.tokenizer, tiny_corpus.bank())[0]
    assert shapes(batch_shapes(config)) == shapes(batch)


def test_the_shapes_are_those_of_the_label_bank():
    config = tiny_step()
    nodes = ontology()
    made = make_bank(nodes, list(nodes), tiny_corpus.tokenizer, config.input.label_variants, config.input.label_context)
    wanted = bank_shapes(config, len(made.ids))
    assert shapes((wanted.tokens, wanted.excluded)) == shapes((made.tokens, made.excluded))
    assert isinstance(wanted, Bank)


loads = st.builds(
    Load,
    pairs=st.integers(1, 10**6),
    chips=st.integers(1, 4096),
    model_flops=st.floats(1e9, 1e19),
    hardware_flops=st.floats(1e9, 1e19),
    hbm=st.floats(0, 1e13),
    ici=st.floats(0, 1e13),
    dcn=st.floats(0, 1e12),
)


@given(loads, st.sampled_from(sorted(CHIPS)), st.floats(0.05, 1), st.floats(1, 1000))
def test_a_step_takes_as_long_as_its_slowest_part_and_its_rates_follow(load, chip, utilisation, images):
    seen = forecast(load, CHIPS[chip], utilisation, images)
    assert seen.step == max(seen.seconds.values()) == seen.seconds[seen.bound]
    assert seen.pairs_per_second * seen.step == pytest.approx(load.pairs)
    assert seen.hosts * seen.chip.per_host >= load.chips
    # who has as many cores as are needed is not bound by the input, and the other way round
    assert (seen.cores_per_host > seen.chip.cores) == (seen.bound == "input")


def test_computing_at_the_stated_utilisation_without_recomputation_is_that_mfu():
    load = Load(pairs=1024, chips=16, model_flops=1e18, hardware_flops=1e18, hbm=0, ici=0, dcn=0)
    seen = forecast(load, CHIPS["v5e"], 0.4, 1e9)
    assert seen.bound == "compute"
    assert seen.mfu == pytest.approx(0.4)


def test_changes_come_from_the_smallest_to_the_largest():
    config = vitl.get_config()
    config.model.remat = "none"
    words = [words for words, _ in changes(config, 256, 1.0)]
    assert words[:2] == ["--config.model.remat=dots", "--config.model.remat=full"]
    parts = [int(line.split("accumulate=")[1]) for line in words if "batch_size" not in line and "accumulate" in line]
    assert parts == [2, 4, 8, 16, 32, 64, 128]  # 128 pairs per device
    batches = [int(line.split("batch_size=")[1]) for line in words if "batch_size" in line]
    assert batches == sorted(batches, reverse=True) and batches[-1] == 256
    assert config.model.remat == "none"  # nothing was changed in place


def test_the_first_change_that_fits_is_named_and_no_further_one_is_compiled():
    tried = []

    def needs(config) -> float:
        tried.append((config.model.remat, config.train.accumulate))
        return {"dots": 90.0, "full": 40.0}[config.model.remat] / config.train.accumulate

    config = vitl.get_config()
    config.model.remat = "none"
    assert "--config.model.remat=full --config.train.accumulate=4 (" in smallest_change(config, 256, 3.0, needs, 15.0)
    assert tried == [("dots", 1), ("full", 1), ("full", 2), ("full", 4)]


def test_where_nothing_fits_more_devices_are_advised():
    assert "more devices" in smallest_change(vitl.get_config(), 256, 100.0, lambda config: 2.0, 1.0)


def test_a_step_that_fits_is_described_and_ends_with_0():
    done = check("--config=tests/tiny_step.py", "--cpu_devices=8", "--slices=2", "--labels=12", "--hbm_gib=1")
    assert done.returncode == 0, done.stderr
    for part in ("mesh data 2, fsdp 4", "parameters", "temporaries", "FLOP per pair", "all, ICI", "all, DCN"):
        assert part in done.stdout
    assert done.stdout.splitlines()[-1].startswith("fits: 0.0")


def test_a_step_that_does_not_fit_ends_with_1_and_one_sentence():
    done = check("--config=tests/tiny_step.py", "--cpu_devices=2", "--labels=12", "--hbm_gib=0.0001", "--nosuggest")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("does not fit: 0.0")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cpu_devices=8", "--topology=v5e:4x4"], "either --topology"),
        ([], "either --topology"),
        (["--topology=v9z:4x4"], "expected a chip of v4, v5e, v5p, v6e"),
        (["--topology=v5e"], "expected a chip of"),
        (["--cpu_devices=8", "--slices=3"], "do not divide"),
        (["--cpu_devices=8", "--config.mesh.data=3"], "does not make 8 devices"),
        (["--cpu_devices=6"], "does not divide among 6 devices"),
        (["--cpu_devices=0"], "cpu_devices"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_used_is_one_line_and_ends_with_2(arguments, words):
    done = check("--config=tests/tiny_step.py", *arguments)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert words in lines[0]


def test_the_parameters_of_the_large_model_are_split_as_agreed():
    golden = json.loads((GOLDENS / "vitl_parameters.json").read_text())
    assert parameter_layout(vitl.get_config(), 256) == golden


@pytest.mark.parametrize(
    "mesh", [pytest.param("8,1", marks=pytest.mark.slow), "4,2", pytest.param("2,4", marks=pytest.mark.slow)]
)
def test_the_collectives_of_the_step_are_those_agreed(mesh):
    done = check(f"--print={mesh}", program="tests.sharding_goldens")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((GOLDENS / "step_collectives.json").read_text())[mesh]


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the TPU compiler is not installed"
)


@pytest.mark.slow
@needs_libtpu
def test_a_topology_compiles_without_any_tpu():
    done = check("--config=tests/tiny_step.py", "--topology=v5e:2x2", "--slices=2", "--labels=12")
    assert done.returncode == 0, done.stderr
    assert "2 x v5e:2x2, 8 chips" in done.stdout
    for part in ("all, DCN", "pairs/s, MFU", "CPU cores"):
        assert part in done.stdout


@pytest.mark.slow
@needs_libtpu
def test_a_step_too_large_for_the_chip_is_refused_with_what_would_fit():
    config = ["--config=configs/vits.py", "--topology=v5e:2x2", "--config.mesh.data=1", "--config.mesh.fsdp=-1"]
    done = check(*config, "--config.input.batch_size=4096", "--config.model.remat=none", "--config.model.dtype=float32")
    assert done.returncode == 1, done.stderr
    assert "the smallest change that fits is --config.model.remat=" in done.stdout.splitlines()[-1]


@pytest.mark.slow
@needs_libtpu
def test_a_topology_that_does_not_exist_is_one_line():
    done = check("--config=tests/tiny_step.py", "--topology=v5e:3x5")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "no such topology" in done.stderr
