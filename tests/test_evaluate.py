"""Evaluation of a run from end to end, and what is said when it cannot be done."""

import json
import os
import subprocess
import sys
import types

import corpus_cases
import jax
import numpy as np
import pytest
import tiny_corpus
import tiny_run

import medp_clip_jax as medp
from medp_clip_jax import augment, eval_data, evaluate, paired, results
from medp_clip_jax.errors import InputError
from medp_clip_jax.eval_input import eval_batches
from medp_clip_jax.evaluators import encode, predictions, prompt_record
from medp_clip_jax.export import export_run
from medp_clip_jax.models.vit import Images
from medp_clip_jax.ontology import Node, Ontology


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return corpus_cases.write_folder(tmp_path_factory.mktemp("data") / "own")


@pytest.fixture(scope="module")
def small():
    """A corpus in memory, a model, its parameters and settings."""
    rng = np.random.default_rng(0)
    records = [tiny_corpus.random_example(rng, str(i), regions) for i, regions in enumerate((0, 1, 5, 3))]
    corpus = tiny_corpus.corpus({"tiny": {"test": records}})
    corpus.labels = ("cell", "left_kidney", "liver", "nodule")
    config = tiny_run.config()
    config.eval.update(batch_size=4, regions=3)
    model = medp.Model(config.model)
    params = jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(x.dtype), model.parameter_shapes())
    return corpus, model, params, config


def tokens(texts, length):
    return tiny_corpus.tokenizer(texts, length) + 1


def test_every_region_has_its_own_embedding_whatever_the_batching(small):
    corpus, model, params, config = small
    kinds = ("mask", "box", "point", "none", "crop", "blackout", "blur", "red_circle")
    found = encode.encode_corpus(model, params, corpus, "test", config, kinds)
    assert tuple(found.regions) == kinds
    other = tiny_run.config()
    other.eval.update(batch_size=2, regions=8)
    again = encode.encode_corpus(model.module, params, corpus, "test", other, ("point", "crop", "blackout"))
    np.testing.assert_allclose(found.image, again.image, atol=2e-6)
    for embedding in found.regions.values():
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    for kind, embedding in again.regions.items():
        np.testing.assert_allclose(embedding, found.regions[kind], atol=2e-6)
    np.testing.assert_allclose(found.empty, found.image, atol=2e-6)
    np.testing.assert_array_equal(found.regions["none"], found.image[found.table.image_index])


def test_a_segmented_region_is_named_from_the_mask_of_its_box(small):
    corpus, plain, params, config = small
    with pytest.raises(InputError, match="no mask decoder"):
        encode.encode_corpus(plain, params, corpus, "test", config, ("segmented",))
    config = tiny_run.config()
    config.model.segmenter.update(width=16, depth=1, heads=2, stride=8, detail=8)
    config.eval.update(batch_size=4, regions=3)
    model, rng = medp.Model(config.model), np.random.default_rng(1)
    params = jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(x.dtype), model.parameter_shapes())
    found = encode.encode_corpus(model, params, corpus, "test", config, ("segmented", "mask"))
    assert tuple(found.regions) == ("segmented", "mask")
    batch = next(eval_batches(corpus, found.table, config, ("box",)))
    features = model.encode_image(params, Images(batch["image"], batch["rectangle"]))
    again = np.asarray(model.segment(params, features, batch["prompts"]["box"]).embedding)
    asked = batch["region_row"] >= 0
    np.testing.assert_allclose(found.regions["segmented"][batch["region_row"][asked]], again[asked], atol=2e-6)
    assert np.abs(found.regions["segmented"] - found.regions["mask"]).max() > 1e-3


def test_labels_are_normalised_means_of_their_sentences(small, monkeypatch):
    corpus, model, params, _ = small
    monkeypatch.setattr(encode, "SENTENCES", 7)  # several batches, the last one padded
    found = encode.encode_labels(model, params, tokens, corpus.ontology, ["liver", "cell"], 16)
    sentences = corpus.ontology.sentences("liver")
    single = np.asarray(model.encode_text(params, tokens(sentences, 16)))
    mean = single.mean(0)
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), atol=2e-6)
    assert encode.encode_labels(model, params, tokens, corpus.ontology, [], 16).shape[0] == 0


@pytest.mark.parametrize(
    ("box", "expected"),
    [((10, 10, 20, 30), (7, 5, 23, 35)), ((0, 0, 100, 80), (0, 0, 100, 80)), ((99, 79, 100, 80), (98, 78, 100, 80))],
)
def test_crops_have_a_margin_and_stay_in_the_image(box, expected):
    assert augment.with_margin(np.array(box, float), (80, 100, 3), 0.25) == expected


def test_metrics_are_shares_and_the_same_without_a_report(small, tmp_path):
    corpus, model, params, config = small
    (tmp_path / "corpus.json").write_text("{}")
    corpus.directory = tmp_path
    inputs = (model, params, types.SimpleNamespace(tokenizer=tokens), corpus, "test", config, ("mask", "none"))
    found = evaluate.run_evaluation(*inputs, corpus.ontology)
    written = evaluate.run_evaluation(*inputs, corpus.ontology, tmp_path / "out")
    extra = {name for name in written if name.startswith("sensitivity/mask/")}  # asked only where it is written
    assert extra and written.keys() - found.keys() == extra
    assert found == pytest.approx({name: written[name] for name in found}, nan_ok=True)
    shares = [v for name, v in found.items() if not name.startswith("context") and not np.isnan(v)]
    assert shares and all(0 <= value <= 1 for value in shares)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "results.json",
        "predictions.npz",
        "prompts.npz",
        "report.html",
    }
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert content["notice"] == results.NOTICE and content["data"]["images"] == 4
    assert content["metrics"]["region/mask/macro"] is None  # too few groups: null, not NaN
    assert content["prompts"] == prompt_record.of_kinds(prompt_record.load(tmp_path / "out")[1])
    assert content["prompts"].keys() == {"mask"}  # the other kind needs none
    assert content["sentences"]["labels"]["liver"] == list(corpus.ontology.sentences("liver"))
    assert content["checkpoint"] == results.origin(tmp_path / "out", params)
    saved = predictions.load(tmp_path / "out")
    searches, _ = paired.searches(saved, saved, [("mask", "mask")], 5)
    for direction in ("text_to_region", "region_to_region"):
        found = searches[f"mask {direction}"]["map_r"]
        assert found["first"] == pytest.approx(content["metrics"][f"retrieval/mask/{direction}/map_r"])
    np.testing.assert_array_equal(
        saved.prompts["mask"], prompt_record.per_region(prompt_record.load(tmp_path / "out")[1]["mask"])
    )


def test_the_bank_holds_the_labels_of_training_too(small, tmp_path):
    corpus, model, params, config = small
    (tmp_path / "labels.json").write_text(json.dumps({"labels": ["kidney", "gone"], "train_regions": {"kidney": 3}}))
    banks = []
    with pytest.MonkeyPatch.context() as patch:
        real = encode.encode_labels
        patch.setattr(evaluate, "encode_labels", lambda *a: banks.append(a[4]) or real(*a))
        evaluate.run_evaluation(
            model, params, tokens, corpus, "test", config, ("none",), corpus.ontology, run_dir=tmp_path
        )
    assert banks == [["cell", "kidney", "left_kidney", "liver", "nodule"]]


def test_from_a_folder_to_the_report(run, folder, tmp_path):
    """The command itself, on a folder that is no corpus yet and has labels the run never saw."""
    command = [sys.executable, "-m", "medp_clip_jax.evaluate", f"--checkpoint={run}", f"--data={folder}"]
    done = subprocess.run(
        [*command, f"--output={tmp_path}", "--kinds=mask,crop", "--seed=3"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "in image" in done.stdout and results.NOTICE in done.stdout
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["seed"], content["config"]["seed"]) == (3, 0)  # of the evaluation, of the training
    assert content["data"]["images"] == 6  # all of the folder is the split asked for
    assert content["data"]["regions"] == 18
    assert "medical device" in (tmp_path / "report.html").read_text()
    assert not (folder / "corpus.json").exists()  # the user's folder is left alone


def test_a_release_is_evaluated_as_its_run_is_and_left_alone(monkeypatch, run, folder, tmp_path):
    released, kinds = tmp_path / "released", ["mask"]
    export_run(run, released, with_programs=False)
    files = {path: path.read_bytes() for path in released.iterdir()}
    monkeypatch.chdir(tmp_path)
    for checkpoint, output in ((run, tmp_path / "own"), (released, None)):
        options(monkeypatch, checkpoint=str(checkpoint), data=str(folder), output=output and str(output), kinds=kinds)
        evaluate.main(["evaluate"])
    found = [
        json.loads((out / "results.json").read_text()) for out in (tmp_path / "own", tmp_path / "evaluation/own-test")
    ]
    assert found[0]["metrics"] == found[1]["metrics"] and found[0]["prompts"] == found[1]["prompts"]
    assert [each["checkpoint"]["name"] for each in found] == [run.name, "released"]
    assert found[0]["checkpoint"]["parameters"] == found[1]["checkpoint"]["parameters"]
    assert {path: path.read_bytes() for path in released.iterdir()} == files


def options(monkeypatch, **values):
    names = ("checkpoint", "data", "eval", "partial", "split", "output", "kinds")
    defaults = dict.fromkeys(names) | {"sources": [], "seed": 0}
    monkeypatch.setattr(evaluate, "FLAGS", types.SimpleNamespace(**{**defaults, **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected --data=CORPUS_OR_FOLDER, and --checkpoint="),
        ({"checkpoint": "nowhere", "data": "x"}, "nowhere: no such directory"),
        ({"checkpoint": "nowhere", "data": "x", "partial": True}, "--partial says .* expected --eval="),
        ({"checkpoint": "nowhere", "data": "x", "kinds": ["masks"]}, "--kinds: expected some of mask, .* got 'masks'"),
    ],
)
def test_wrong_options_are_one_line(monkeypatch, values, message):
    options(monkeypatch, **values)
    with pytest.raises(InputError, match=message) as error:
        evaluate.main(["evaluate"])
    assert "\n" not in str(error.value)


def test_a_wrong_output_and_extra_words_are_named(monkeypatch, run, tmp_path):
    (tmp_path / "file").write_text("")
    options(monkeypatch, checkpoint=str(run), data="x", output=str(tmp_path / "file"))
    with pytest.raises(InputError, match="file: cannot be written"):
        evaluate.main(["evaluate"])
    with pytest.raises(InputError, match="unexpected argument 'x'"):
        evaluate.main(["evaluate", "x"])


def test_data_that_is_neither_corpus_nor_folder(tmp_path):
    with pytest.raises(InputError, match="absent: is not a folder: give --data"):
        eval_data.open_data(tmp_path / "absent", "test", tmp_path)
    with pytest.raises(InputError, match=r"holds no corpus\.json and no images\.jsonl"):
        eval_data.open_data(tmp_path, "test", tmp_path)


def test_folders_are_built_once_and_as_their_splits_say(monkeypatch, tmp_path):
    root = tmp_path / "root"
    for name in ("listed", "other"):
        (root / name).mkdir(parents=True)
        (root / name / "images.jsonl").write_text("{}\n")
    calls = []
    monkeypatch.setattr(eval_data, "ensure_corpus", lambda directory, arguments: calls.append((directory, arguments)))

    def opened(path):
        eval_data.open_data(path, "val", tmp_path / "cache")
        return calls[-1]

    directory, arguments = opened(root / "listed")
    assert arguments == ["--source=folder", f"--input={root / 'listed'}", "--split=val"]
    assert opened(root / "listed")[0] == directory
    (root / "splits.json").write_text('{"listed": {"a": "val"}}')
    assert "--split=val" not in opened(root / "listed")[1]
    assert "--split=val" in opened(root / "other")[1]
    assert "--split=val" not in opened(root)[1]
    assert opened(root / "listed")[0] != directory  # another split is another corpus
    (root / "listed" / "images.jsonl").write_text("{}\n{}\n")
    assert opened(root / "listed")[0] not in {call[0] for call in calls[:-1]}


def test_all_of_a_folder_is_evaluated_whatever_its_splits_say(tmp_path):
    run, folder = tiny_run.write_run(tmp_path / "run"), corpus_cases.write_folder(tmp_path / "root/own", images=3)
    rows = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    assigned = {row["image_id"]: split for row, split in zip(rows, ("train", "test", "unused"), strict=True)}
    (tmp_path / "root/splits.json").write_text(json.dumps({"own": assigned}))
    command = [sys.executable, "-m", "medp_clip_jax.evaluate", f"--checkpoint={run}", f"--data={folder}", "--split=all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads((run / "evaluation/own-whole/results.json").read_text())
    assert content["data"]["split"] == "whole" and content["data"]["images"] == 2  # unused ones stay so


def test_changed_pixels_are_another_corpus(monkeypatch, tmp_path):
    folder = corpus_cases.write_folder(tmp_path / "own", images=2)
    monkeypatch.setattr(eval_data, "ensure_corpus", lambda directory, arguments: directory)

    def opened():
        return eval_data.open_data(folder, "test", tmp_path / "cache")

    seen = [opened()]
    for path in ("masks/0.png", "masks/1_instances.png", "images/1.png"):
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content + b" ")
        os.utime(folder / path, ns=(0, 0))
        seen.append(opened())
        (folder / path).write_bytes(content + b"_")  # of the same size
        seen.append(opened())
    (folder / "masks/0.png").unlink()
    seen.append(opened())
    assert len(set(seen)) == len(seen) == 8 and opened() == seen[-1]


def test_ontologies_are_merged_parents_first():
    corpus, trained = Ontology([Node("a", "a")]), Ontology([Node("z", "z"), Node("b", "b", parents=("z",))])
    assert set(evaluate.merge_ontologies(corpus, trained)) == {"a", "b", "z"}


def test_a_damaged_labels_file_is_named(tmp_path):
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(InputError, match=r"labels\.json: not readable"):
        evaluate.read_trained(tmp_path)
    assert evaluate.read_trained(None) == {}


def test_labels_without_a_region_in_training_are_not_seen():
    assert evaluate.seen_labels({"train_regions": {"liver": 3, "spleen": 0}}) == {"liver"}
    assert evaluate.seen_labels({"labels": ["liver"]}) is None


def test_an_absent_split_is_named(small):
    corpus, model, params, config = small
    with pytest.raises(InputError, match="no images in split 'train'"):
        evaluate.run_evaluation(model, params, tokens, corpus, "train", config, None, corpus.ontology)


def test_the_screen_shows_a_dash_where_there_is_no_number():
    text = results.screen_table({"region/mask/micro": 0.5, "region/mask/macro": float("nan"), "image/accuracy": 0.25})
    assert text.splitlines()[1].split() == ["mask", "50.0", "–"]
    assert text.splitlines()[-1].split() == ["image/accuracy", "25.0"]
