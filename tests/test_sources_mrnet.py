"""MRNet: examinations as stacks, findings as labels of their images."""

import numpy as np
import pytest
from volume_cases import ONTOLOGY, open_all, stream

from data.report import Report
from data.sources.mrnet import open_mrnet
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image

PLANES = ("axial", "coronal", "sagittal")


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "salt").write_bytes(b"a secret of sixteen bytes or more")
    monkeypatch.setenv("MEDP_CLIP_SALT_FILE", str(tmp_path / "salt"))
    rng = np.random.default_rng(0)
    for part, exams in (("train", ("0000", "0001")), ("valid", ("1130",))):
        for plane in PLANES:
            (tmp_path / f"in/{part}/{plane}").mkdir(parents=True)
            for exam in exams:
                np.save(tmp_path / f"in/{part}/{plane}/{exam}.npy", rng.integers(0, 256, (9, 20, 30), np.uint8))
        for finding, values in (("abnormal", (1, 0)), ("acl", (1, 0)), ("meniscus", (0, 0))):
            lines = [f"{exam},{value}\n" for exam, value in zip(exams, values, strict=False)]
            (tmp_path / f"in/{part}-{finding}.csv").write_text("".join(lines))
    return tmp_path / "in"


def test_slices_are_shown_as_stored_with_the_findings_of_the_examination(root):
    source = open_mrnet(root, ONTOLOGY, ONTOLOGY, "", Report(), {"ids": "keep", "every": "1"})
    assert set(source.splits) == {"train", "val"}
    examples = stream(source)
    assert len(examples) == 3 * 3 * 9
    for example in examples:
        part, exam = example.group.split("/")
        stack = np.load(root / part / example.view / f"{exam}.npy")
        low, high = np.percentile(stack, (0.5, 99.5))
        index = int(example.image_id[-4:])
        expected = np.rint(np.clip((stack[index].astype(np.float32) - low) * (255 / (high - low)), 0, 255))
        assert np.abs(decode_image(example.image)[..., 0] - expected).max() <= 1
        assert set(example.image_labels) == ({"knee_abnormality", "acl_tear"} if exam != "0001" else set())
        assert example.regions == () and (example.modality, example.anatomy) == ("mri", "knee")
    assert len({example.image_id for example in examples}) == len(examples)


def test_every_nth_slice_from_the_middle(root):
    examples = stream(open_all(open_mrnet, root, every="3", planes="coronal"))
    assert {example.view for example in examples} == {"coronal"}
    assert sorted({int(example.image_id[-4:]) for example in examples}) == [1, 4, 7]


def test_what_is_damaged_is_told(root, capsys):
    (root / "train/axial/0000.npy").write_bytes(b"\x93NUMPY cut")
    (root / "train/coronal/0000.npy").unlink()
    np.save(root / "train/sagittal/0000.npy", np.zeros((4, 5)))
    report = Report()
    examples = stream(open_mrnet(root, ONTOLOGY, ONTOLOGY, "train", report, {}))
    assert report.skipped == {"unreadable volume": 2, "missing volume": 1}
    assert "0000" not in capsys.readouterr().err and len({example.group for example in examples}) == 2
    (root / "train-acl.csv").write_text("id,label\n")
    with pytest.raises(InputError, match="train-acl.csv:1: expected the number"):
        open_all(open_mrnet, root)
    with pytest.raises(InputError, match="every=0"):
        open_all(open_mrnet, root, every="0")
    with pytest.raises(InputError):
        open_all(open_mrnet, root / "train")
