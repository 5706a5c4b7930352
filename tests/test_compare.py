"""Two runs set against each other region by region."""

import json
import types

import numpy as np
import pytest
from encoded_cases import IDS, ONTOLOGY, TEXT, encoded, image, table

from medp_clip_jax import compare
from medp_clip_jax.errors import InputError
from medp_clip_jax.evaluators import predictions, region_recognition


def write(path, answer, images=range(12), ids=IDS, prompts=None):
    """Results of a run that gives each region (image, label) the label `answer(image, label)`; `prompts` int are what
    the images were asked by, None in files of older versions."""
    path.mkdir()
    rows = [(i, IDS[(k + j) % 3]) for i, k in enumerate(images) for j in range(2)]
    regions_table = table([image(str(k)) for k in images], rows)
    found = encoded(regions_table, mask=[answer(images[i], label) for i, label in rows])
    text = TEXT[[IDS.index(label) for label in ids]]
    _, _, kinds = region_recognition.evaluate(found, ONTOLOGY, text, ids, replicates=0)
    digests = None if prompts is None else {"mask": np.array([prompts[i] for i, _ in rows], np.uint64)}
    predictions.save(path, regions_table, region_recognition.describe_regions(regions_table, ids), kinds, digests)
    return path


def right(_, label):
    return label


def wrong(_, label):
    return IDS[(IDS.index(label) + 1) % 3]


def test_a_run_equals_itself(tmp_path):
    saved = predictions.load(write(tmp_path / "a", right))
    found = compare.compare(saved, saved, [("mask", "mask")], replicates=20)["mask"]
    assert found["micro"] == {"first": 1.0, "second": 1.0, "estimate": 0.0, "low": 0.0, "high": 0.0}


def test_better_in_every_patient_excludes_zero(tmp_path):
    first, second = (predictions.load(write(tmp_path / n, f)) for n, f in (("a", right), ("b", wrong)))
    found = compare.compare(first, second, [("mask", "mask"), ("mask", "none")], replicates=50)
    assert found["mask"]["macro"]["low"] == found["mask"]["macro"]["high"] == 1.0
    assert found["mask - none"]["within_image"]["estimate"] == pytest.approx(0.5)
    assert compare.table(found).count(" *") == 6


def test_order_and_number_of_images_do_not_matter(tmp_path):
    half = list(range(1, 24, 2))
    first = predictions.load(write(tmp_path / "a", lambda i, label: label if i % 2 else IDS[3], images=range(24)))
    second = predictions.load(write(tmp_path / "b", right, images=half[::-1]))
    found = compare.compare(first, second, [("mask", "mask")], replicates=20)["mask"]
    assert all(v["estimate"] == 0 and v["first"] == 1 for v in found.values())


def test_the_bank_may_be_numbered_differently(tmp_path):
    first = predictions.load(write(tmp_path / "a", right))
    second = predictions.load(write(tmp_path / "b", right, ids=IDS[::-1]))
    assert compare.compare(first, second, [("mask", "mask")], replicates=5)["mask"]["micro"]["estimate"] == 0


def test_other_prompts_and_unknown_ones_are_told(tmp_path):
    kinds = ("mask", "none")
    first = predictions.load(write(tmp_path / "a", right, prompts=range(12)))
    assert compare.prompt_notes(first, first, kinds) == []
    part = predictions.load(write(tmp_path / "b", wrong, images=[5, 3], prompts=[5, 3]))
    assert compare.prompt_notes(first, part, kinds) == []  # of what both have
    other = predictions.load(write(tmp_path / "c", wrong, prompts=[*range(11), 99]))
    (line,) = compare.prompt_notes(first, other, kinds)
    assert "mask: 2 of 24 regions were asked by different prompts" in line
    old = predictions.load(write(tmp_path / "d", right))
    (line,) = compare.prompt_notes(first, old, kinds)
    assert "mask: results of an older version do not say by which prompts" in line


def test_nothing_in_common_is_an_error(tmp_path):
    first = predictions.load(write(tmp_path / "a", right, images=[0, 1]))
    second = predictions.load(write(tmp_path / "b", right, images=[2, 3]))
    with pytest.raises(InputError, match="share no region"):
        compare.compare(first, second, [("mask", "mask")])
    with pytest.raises(InputError, match="no prompt kind 'box', they have mask, none"):
        compare.compare(first, first, [("box", "mask")])


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_damaged_results_are_named(tmp_path, content):
    if content is not None:
        (tmp_path / "predictions.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"predictions\.npz: .*(run|evaluate)"):
        predictions.load(tmp_path)


def test_an_archive_of_something_else_is_named(tmp_path):
    np.savez(tmp_path / "predictions.npz", other=np.ones(3))
    with pytest.raises(InputError, match="not a predictions file"):
        predictions.load(tmp_path)


def test_command_line(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a", right, prompts=[1] * 12)
    write(tmp_path / "b", wrong, prompts=[2] * 12)
    output = tmp_path / "difference.json"
    flags = types.SimpleNamespace(kinds=["mask"], reference="none", output=str(output))
    monkeypatch.setattr(compare, "FLAGS", flags)
    compare.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "24 regions of 24 and 24" in capsys.readouterr().out
    assert json.loads(output.read_text())["mask - none"]["micro"]["first"] == 1
    flags.reference = ""
    compare.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "24 of 24 regions were asked by different prompts" in capsys.readouterr().out
    flags.output = str(tmp_path / "absent/x.json")
    with pytest.raises(InputError, match="cannot be written"):
        compare.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(InputError, match="two result folders"):
        compare.main(["compare", str(tmp_path / "a")])
