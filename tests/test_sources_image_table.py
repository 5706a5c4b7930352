"""Tables of images and labels: a column per label or one that names them; what is unclear is told, not guessed."""

import pytest

from data.sources.image_table import open_image_table
from medp_clip_jax.errors import InputError
from tests.sources_cases import examples, marked, opened, save, told


def write(folder, table, *images, name="labels.csv"):
    for i, image in enumerate(images):
        save(folder / image, marked(i)[0])
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(table) + "\n")
    return folder


def of(source, split="train"):
    return {example.image_id: example.image_labels for example in examples(source, split)}


def test_a_column_per_label(tmp_path, capsys):
    table = ("image,LI,SP,XX", "a,1.0,0.0,0", "b,1,1,", "c,0,-1,1", "d,0,0,0")
    folder = write(tmp_path / "set", table, "in/a.jpg", "in/b.png", "in/c.jpg", "in/d.jpg")
    source = opened(open_image_table, folder, classes="LI=liver,SP=spleen,XX=", images="in", modality="ct")
    assert of(source) == {"a": ("liver",), "b": ("liver", "spleen"), "d": ()}  # c has only what is left out
    assert examples(source)[0].modality == "ct" and not told(capsys)


def test_a_column_that_names_the_labels(tmp_path, capsys):
    table = ("filename,labels", "a.png,['L']", "b.png,['S']|['L']", "c.png,['?']", "d.png,['O']", "e.png,")
    folder = write(tmp_path / "set", table, *(f"{name}.png" for name in "abcde"))
    source = opened(open_image_table, folder, label="labels", classes="['L']=liver,['S']=spleen,['O']=")
    assert of(source) == {"a.png": ("liver",), "b.png": ("spleen", "liver"), "e.png": ()}
    (line,) = told(capsys)
    assert "labels.csv:4" in line and "class absent from the table" in line and "['?']" in line
    assert of(opened(open_image_table, folder, label="labels"))["a.png"]  # without a table names are as they stand


def test_patients_and_splits_from_columns_names_and_hashes(tmp_path):
    table = ("path,patient_id,part,label", "a.png,p1,Training,liver", "b.png,p1,Training,liver", "c.png,p2,Test,spleen")
    folder = write(tmp_path / "set", table, "a.png", "b.png", "c.png")
    source = opened(open_image_table, folder, only="", label="label", split="part")
    assert sorted(of(source, "train")) == ["a.png", "b.png"] and list(of(source, "test")) == ["c.png"]
    groups = {row.image_id: row.group for part in source.items.values() for row in part.items}
    assert groups == {"a.png": "p1", "b.png": "p1", "c.png": "p2"}
    named = write(tmp_path / "two", ("image,L", "x,1"), "x.png", name="Val_GroundTruth.csv")
    write(named, ("image,L", "y,1"), "y.png", name="Test_GroundTruth.csv")
    source = opened(open_image_table, named, only="", classes="L=liver", table="*_GroundTruth.csv")
    assert list(of(source, "val")) == ["x"] and list(of(source, "test")) == ["y"]
    expression = opened(open_image_table, folder, label="label", group=r"^(.)", patient="part")
    assert {row.group for part in expression.items.values() for row in part.items} == {"a", "b", "c"}


def test_what_is_unclear_is_told_and_left_out(tmp_path, capsys):
    folder = write(tmp_path / "set", ("image,L", "a,1", "b,maybe", ",1", "gone,1"), "a.png", "b.png")
    assert of(opened(open_image_table, folder, classes="L=liver")) == {"a": ("liver",)}
    lines = told(capsys)
    assert len(lines) == 3 and any("'maybe': expected 0 or 1" in line for line in lines)
    assert any("no image path" in line for line in lines) and any("missing image" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing says which columns are labels"),
        ({"classes": "Z=liver"}, "no column for a label: expected Z"),
        ({"label": "finding"}, "no column for the labels"),
        ({"label": "L", "image": "file"}, "no column for the image"),
        ({"label": "L", "split": "part"}, "no column for the split"),
        ({"label": "L", "table": "none.csv"}, "no such file"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(tmp_path, options, words):
    folder = write(tmp_path / "set", ("image,L", "a,1"), "a.png")
    with pytest.raises(InputError, match=words):
        opened(open_image_table, folder, **options)


def test_several_tables_need_a_name(tmp_path):
    folder = write(tmp_path / "set", ("image,L", "a,1"), "a.png")
    (folder / "other.csv").write_text("x\n")
    with pytest.raises(InputError, match="2 .csv files"):
        opened(open_image_table, folder, label="L")
    with pytest.raises(InputError, match="no such folder"):
        opened(open_image_table, tmp_path / "none", label="L")
