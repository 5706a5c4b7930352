"""A release holds the run's model to the bit, is whole or absent, and nothing damaged or foreign is loaded from one."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

import chex
import huggingface_hub.constants
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from release_cases import BAD
from safetensors.numpy import load_file

import medp_clip_jax as medp
from medp_clip_jax import hub, release
from medp_clip_jax.export import export_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("run") / "run", steps=(3, 5))


@pytest.fixture(scope="module")
def released(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "whole"
    export_run(run, folder, with_programs=False)
    return folder


@pytest.fixture(scope="module")
def sharded(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "sharded"
    export_run(run, folder, shard=50_000, with_programs=False)
    return folder


@pytest.fixture
def broken(released, tmp_path):
    """A copy of the release to damage."""
    return shutil.copytree(released, tmp_path / "copy")


@pytest.mark.parametrize("step", [None, 3])
def test_a_release_is_the_run_to_the_bit(run, tmp_path, step):
    export_run(run, tmp_path / "out", step=step, with_programs=False)
    model, params, processor = medp.load(run, step)
    again, reread, same = medp.load(tmp_path / "out")
    assert again == model and same.mode == processor.mode
    assert (same.size, same.context) == (processor.size, processor.context)
    assert same.tokenizer.to_json() == processor.tokenizer.to_json()
    chex.assert_trees_all_equal(reread, params)


def test_shards_keep_to_their_size_and_read_as_one(released, sharded):
    files = sorted(sharded.glob("model-*.safetensors"))
    assert len(files) > 2 and not (sharded / "model.safetensors").exists()
    biggest = max(x.nbytes for x in load_file(released / "model.safetensors").values())
    assert all(sum(x.nbytes for x in load_file(file).values()) <= max(50_000, biggest) for file in files)
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for file in files for x in load_file(file).values())
    chex.assert_trees_all_equal(medp.load(sharded)[1], medp.load(released)[1])


def test_bfloat16_is_half_the_size_and_nearly_the_model(run, released, tmp_path):
    export_run(run, tmp_path / "half", dtype="bfloat16", with_programs=False)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", released)]
    assert sizes[0] < 0.6 * sizes[1]
    model, half, processor = medp.load(tmp_path / "half")
    _, whole, _ = medp.load(released)
    assert {str(x.dtype) for x in jax.tree.leaves(half) if x.ndim} == {"bfloat16"}
    chex.assert_trees_all_equal(half["logit_scale"], whole["logit_scale"])  # scalars are not rounded
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32) if x.ndim else x, whole)
    _, widened, _ = medp.load(tmp_path / "half", dtype="float32")
    chex.assert_trees_all_equal(widened, rounded)
    tokens = processor.tokens(["liver", "left kidney"])
    np.testing.assert_allclose(model.encode_text(half, tokens), model.encode_text(rounded, tokens), atol=1e-5)


def test_checksums_are_those_of_sha256sum(sharded):
    found = {}
    for line in (sharded / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        found[name] = digest
        assert hashlib.sha256((sharded / name).read_bytes()).hexdigest() == digest
    assert set(found) == {path.name for path in sharded.iterdir()} - {"SHA256SUMS", "README.md"}


def test_nothing_of_the_machine_is_released(run, released):
    for path in released.iterdir():
        assert str(run) not in path.read_bytes().decode("latin-1"), f"{path.name} names the run's directory"


def test_the_card_says_what_the_run_says(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (tmp_path / "corpus").mkdir()
    source = {"provenance": {"licence": "CC BY 4.0", "origin": "somewhere"}}
    source["splits"] = {"train": {"images": 1234, "labels": {"liver": 7, "spleen": 5000}}}
    (tmp_path / "corpus" / "corpus.json").write_text(json.dumps({"sources": {"livers": source}}))
    config = json.loads((copy / "config.json").read_text())
    config["data"]["corpus"] = str(tmp_path / "corpus")
    config["init"], config["optim"]["frozen"] = "imports/sentences", ["text"]
    (copy / "config.json").write_text(json.dumps(config))
    results = {"data": {"name": "livers", "split": "test"}, "metrics": {"region/mask/micro": 0.4321}}
    (copy / "results.json").write_text(json.dumps(results))
    export_run(copy, tmp_path / "out", with_programs=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| livers | 1,234 | 5,007 | CC BY 4.0 | somewhere |" in card and "| mask | 43.2 | – | – |" in card
    assert "the parameters in `sentences`, and `text` stayed as it came: their licence holds, too." in card
    for heading in ("Intended use", "Training data and licences", "Evaluation", "Limits", "Licence"):
        assert f"## {heading}" in card


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release, "write_sums", fail)
    with pytest.raises(medp.InputError, match="out: cannot be written .No space left"):
        export_run(run, tmp_path / "out", with_programs=False)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_cleared_and_what_exists_is_kept(run, tmp_path):
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part" / "model.safetensors").write_text("half")
    export_run(run, tmp_path / "out", with_programs=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    before = (tmp_path / "out" / "SHA256SUMS").read_text()
    with pytest.raises(medp.InputError, match="out: exists already"):
        export_run(run, tmp_path / "out", step=3, with_programs=False)
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == before


def test_weights_that_are_not_finite_are_not_released(run, tmp_path, monkeypatch):
    from medp_clip_jax import api

    model, params, processor = medp.load(run)
    bad = params | {"logit_bias": jnp.asarray(jnp.nan)}
    monkeypatch.setattr(api, "load", lambda *_: (model, bad, processor))
    with pytest.raises(medp.InputError, match="logit_bias has values that are not finite"):
        export_run(run, tmp_path / "out", with_programs=False)
    assert list(tmp_path.iterdir()) == []


def test_a_step_or_a_revision_of_a_folder_is_refused(released):
    with pytest.raises(medp.InputError, match="leave the step 3 out"):
        medp.load(released, step=3)
    with pytest.raises(medp.InputError, match="has no revision main"):
        medp.load(released, revision="main")


# Bad input: nothing of it loads, and one line says why.


@pytest.mark.parametrize("case", BAD)
def test_a_bad_release_is_refused_in_one_line(broken, case):
    damage, message = BAD[case]
    damage(broken)
    with pytest.raises(medp.InputError, match=message) as caught:
        medp.load(broken)
    assert "\n" not in str(caught.value)


def test_a_changed_small_file_is_noticed(broken):
    (broken / "config.json").write_text((broken / "config.json").read_text() + " ")
    with pytest.raises(medp.InputError, match=r"config\.json: not the file that SHA256SUMS describes"):
        medp.load(broken)


def test_a_shard_that_is_missing_is_named(sharded, tmp_path):
    copy = shutil.copytree(sharded, tmp_path / "copy")
    next(copy.glob("model-00002-*")).unlink()
    with pytest.raises(medp.InputError, match=r"model-00002-of-\d+\.safetensors: missing"):
        medp.load(copy)


# The Hub, as its client leaves it on disk; there is no network in a test.


@pytest.fixture
def cached(released, tmp_path, monkeypatch):
    """The release in a cache of the Hub, at a commit that `main` points to; offline."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--medp"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for file in released.iterdir():
        blob = shutil.copy(file, blobs / hashlib.sha256(file.read_bytes()).hexdigest())
        (snapshot / file.name).symlink_to(blob)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return commit


def test_a_name_is_read_from_the_cache_and_can_be_pinned(cached, released):
    expected = medp.load(released)[1]
    for revision in (None, "main", cached):
        chex.assert_trees_all_equal(medp.load("someone/medp", revision=revision)[1], expected)


@pytest.mark.parametrize(("name", "revision"), [("nobody/nothing", None), ("someone/medp", "f" * 40)])
def test_what_the_cache_lacks_is_refused_offline(cached, name, revision):
    with pytest.raises(medp.InputError, match="not in the cache of the Hub, and offline mode is on") as caught:
        medp.load(name, revision=revision)
    assert "\n" not in str(caught.value)


def test_a_mistyped_path_is_not_looked_up(cached, tmp_path):
    (tmp_path / "runs").mkdir()
    for path in ("runs/smokes", "./x/y", "a/b/c", "nowhere"):
        with pytest.raises(medp.InputError, match="no such directory"):
            medp.load(path)


# The command.


def _export(*arguments):
    command = [sys.executable, "-m", "medp_clip_jax.export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_writes_what_load_reads(run, tmp_path):
    done = _export(run, f"--output={tmp_path / 'out'}", "--dtype=bfloat16", "--shard_gb=0.00005", "--noprograms")
    assert done.returncode == 0, done.stderr
    assert "out: " in done.stdout and len(list((tmp_path / "out").glob("model-*"))) > 1
    medp.load(tmp_path / "out")


def test_the_command_refuses_in_one_line(tmp_path):
    done = _export(tmp_path / "nothing", f"--output={tmp_path / 'out'}")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_the_package_brings_is_found_by_its_name(released, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SHIPPED", tmp_path / "releases")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(medp.InputError, match="a release, a name owner/model"):
        medp.load("ours")
    shutil.copytree(released, tmp_path / "releases" / "ours")
    assert hub.shipped() == ["ours"] and hub.locate("ours") == tmp_path / "releases" / "ours"
    chex.assert_trees_all_equal(medp.load("ours")[1], medp.load(released)[1])
    with pytest.raises(medp.InputError, match="no revision 1"):
        medp.load("ours", revision="1")
    with pytest.raises(medp.InputError, match="ours or a name owner/model"):
        medp.load("other")
    shutil.copytree(released, tmp_path / "ours")
    assert hub.locate("ours") == pathlib.Path("ours")  # a folder of that name comes first
