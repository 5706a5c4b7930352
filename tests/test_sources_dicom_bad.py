"""Damaged DICOM is one line each that names nobody; and not a byte of a patient's data is in a corpus or on stderr."""

import subprocess
import sys

import numpy as np
import pydicom
import pytest
from dicom_cases import AXIAL, FILE_NAME, SECRETS, contours, save, seg, slices, stored_labels, write_series
from volume_cases import ONTOLOGY, check_examples, open_all, pictures, stream

from data.assembly import build_corpus
from data.report import Report
from data.sources.dicom import open_dicom
from medp_clip_jax.corpus import open_corpus
from medp_clip_jax.errors import InputError
from medp_clip_jax.records import decode_image


@pytest.fixture(autouse=True)
def salt(tmp_path, monkeypatch):
    (tmp_path / "salt").write_bytes(b"another secret of the owner")
    monkeypatch.setenv("MEDP_CLIP_SALT_FILE", str(tmp_path / "salt"))


def run(root, **options):
    report = Report()
    examples = stream(open_dicom(root, ONTOLOGY, ONTOLOGY, "train", report, {"step_mm": "0", **options}))
    return examples, report.skipped


def secrets_in(text: str, datasets) -> list[str]:
    found = [word for value in SECRETS.values() for word in value.split("^")]
    keys = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    found += [str(getattr(one, key)) for one in datasets for key in keys]
    return [word for word in (*found, FILE_NAME) if word in text]


def damage(path, kind):
    data = path.read_bytes()
    dataset = pydicom.dcmread(path)
    if kind == "cut in the pixels":
        path.write_bytes(data[:-500])
    elif kind == "cut in the header":
        path.write_bytes(data[:400])
    elif kind == "unknown transfer syntax":
        known = str(dataset.file_meta.TransferSyntaxUID).encode()
        path.write_bytes(data.replace(known, known[:-1] + b"9", 1))
    elif kind == "duplicate":
        (path.parent / f"{path.stem}_copy.dcm").write_bytes(data)
    elif kind == "no geometry":
        dataset.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
        save(dataset, path)


KINDS = {
    "cut in the pixels": ("unreadable slice", 11),
    "cut in the header": ("unreadable DICOM", 11),
    "unknown transfer syntax": ("unreadable slice", 11),
    "duplicate": ("duplicate SOP instance", 12),
    "no geometry": ("no usable geometry", 11),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_one_line_and_the_others_stay(tmp_path, capsys, kind):
    datasets = slices(AXIAL)
    paths = write_series(tmp_path / "in", datasets)
    good, _ = run(tmp_path / "in", empty="yes")
    damage(paths[0], kind)
    capsys.readouterr()
    examples, skipped = run(tmp_path / "in", empty="yes")
    told = capsys.readouterr().err
    reason, kept = KINDS[kind]
    assert skipped == {reason: 1} and len(examples) == kept
    assert len([line for line in told.splitlines() if line.startswith("skipped: ")]) == 1
    assert {example.image for example in examples} <= {example.image for example in good}
    assert secrets_in(told, datasets) == []
    with pytest.raises(InputError, match=reason) as caught:
        stream(open_all(open_dicom, tmp_path / "in", strict=True, step_mm="0"))
    assert secrets_in(str(caught.value), datasets) == []


@pytest.mark.parametrize("annotated", ["SEG", "RTSTRUCT"])
def test_missing_slices_are_told_and_leave_the_others_in_place(tmp_path, capsys, annotated):
    datasets = slices(AXIAL)
    labels = stored_labels(AXIAL)
    made = seg(datasets, labels) if annotated == "SEG" else contours(datasets, labels, True)
    write_series(tmp_path / "in", datasets[:4] + datasets[6:])
    save(made, tmp_path / "in/annotation.dcm")
    examples, skipped = run(tmp_path / "in")
    told = capsys.readouterr().err
    assert "2 slices are missing in 1 gaps" in told
    assert skipped == {"annotation off the slices": 2}  # one per structure
    gone = [4, 5]
    index = [k for k in range(12) if k not in gone]
    expected = {at: pictures("axial")[k] for at, k in enumerate(index)}
    assert check_examples(examples, "axial", expected=expected) == sum(
        (labels_ == value).any() for labels_ in expected.values() for value in (1, 2)
    )
    other, skipped = run(tmp_path / "in", planes="coronal")
    assert other == [] and skipped["plane not there"] == 1


def test_shifted_slices_of_a_tilted_gantry_keep_their_plane(tmp_path, capsys):
    datasets = slices(AXIAL)
    for k, one in enumerate(datasets):
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [x, y + k * 0.8, z]
    write_series(tmp_path / "in", datasets)
    save(contours(datasets, stored_labels(AXIAL), True), tmp_path / "in/rt.dcm")
    examples, skipped = run(tmp_path / "in")
    assert "shifted against each other" in capsys.readouterr().err and not skipped
    assert check_examples(examples, "axial")


def test_inverted_images_look_as_others_do(tmp_path):
    plain, inverse = slices(AXIAL, "MR"), slices(AXIAL, "MR")
    for one in inverse:
        one.PhotometricInterpretation = "MONOCHROME1"
        one.RescaleSlope, one.RescaleIntercept = -1, 1024
    write_series(tmp_path / "plain", plain)
    write_series(tmp_path / "inverse", inverse)
    (one, _), (other, _) = run(tmp_path / "plain", empty="yes"), run(tmp_path / "inverse", empty="yes")
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(decode_image(a.image).astype(int), decode_image(b.image).astype(int), atol=1)


@pytest.mark.parametrize("case", ["no structure", "no contour", "no image", "broken", "empty frames"])
def test_annotations_that_show_nothing_are_told(tmp_path, capsys, case):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets)
    made = contours(datasets, stored_labels(AXIAL), True)
    reasons = {
        "no structure": "empty annotation", "no contour": "empty mask", "no image": "annotation without its images",
        "broken": "unreadable annotation", "empty frames": "empty mask",
    }  # fmt: skip
    if case == "no structure":
        del made.StructureSetROISequence
    elif case == "no contour":
        for roi in made.ROIContourSequence:
            roi.ContourSequence = []
    elif case == "no image":
        study = made.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        study.RTReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"
    elif case == "empty frames":
        made = seg(datasets, stored_labels(AXIAL))
        made.PixelData = bytes(len(made.PixelData))
    path = save(made, tmp_path / "in/annotation.dcm")
    if case == "broken":
        for roi in made.ROIContourSequence:
            first = str(roi.ContourSequence[0].ContourData[0]).encode() + b"\\"
            path.write_bytes(path.read_bytes().replace(first, b"x" * (len(first) - 1) + b"\\"))
    capsys.readouterr()
    _, skipped = run(tmp_path / "in", burned_in="off")
    assert set(skipped) == {reasons[case]}
    assert secrets_in(capsys.readouterr().err, [*datasets, made]) == []


def test_a_cut_segmentation_is_told(tmp_path, capsys):
    datasets = slices(AXIAL)
    write_series(tmp_path / "in", datasets)
    path = save(seg(datasets, stored_labels(AXIAL)), tmp_path / "in/seg.dcm")
    path.write_bytes(path.read_bytes()[:-300])
    examples, skipped = run(tmp_path / "in")
    assert skipped == {"unreadable annotation": 1}  # the second structure's last frames are gone
    assert {region.label for example in examples for region in example.regions} == {"kidney_left"}


def test_text_in_the_pixels_is_flagged_or_left_out(tmp_path, capsys):
    datasets = slices(AXIAL)[:2]
    datasets[0].BurnedInAnnotation = "YES"
    write_series(tmp_path / "in", datasets[:1])
    examples, skipped = run(tmp_path / "in")
    assert len(examples) == 1 and not skipped and "burnt into the pixels" in capsys.readouterr().err
    examples, skipped = run(tmp_path / "in", burned_in="skip")
    assert examples == [] and skipped == {"text in the pixels": 1}


def test_volumes_of_the_head_are_warned_of_once(tmp_path, capsys):
    datasets = slices(AXIAL)
    for one in datasets:
        one.BodyPartExamined = "HEAD"
    write_series(tmp_path / "in", datasets)
    run(tmp_path / "in")
    assert capsys.readouterr().err.count("a face can be rebuilt") == 1


def test_a_body_part_is_taken_only_if_it_is_a_defined_term(tmp_path):
    datasets = slices(AXIAL)
    for one in datasets:
        one.BodyPartExamined = "QUARZBERG"
    write_series(tmp_path / "in", datasets)
    examples, _ = run(tmp_path / "in")
    assert {example.anatomy for example in examples} == {""}


def write_clinic(root):
    """Two patients with annotations, one damaged file, and a name that is no UTF-8."""
    datasets = slices(AXIAL)
    paths = write_series(root, datasets)
    save(seg(datasets, stored_labels(AXIAL)), root / "Quarzberg/seg.dcm")
    save(contours(datasets, stored_labels(AXIAL), True, names=("Left kidney", "Niere Quarzberg")), root / "rt.dcm")
    other = slices(AXIAL)
    for one in other:
        one.PatientID, one.SpecificCharacterSet = "ZX-4711-0816", "ISO_IR 100"
        one.PatientName = "Quärzberg^Otto"
    write_series(root / "second", other)
    paths[0].write_bytes(paths[0].read_bytes()[:-99])
    return [*datasets, *other]


def test_no_byte_of_a_patient_is_in_a_corpus_or_on_stderr(tmp_path, capfd):
    datasets = write_clinic(tmp_path / "Quarzberg_Akte")
    report = Report()
    options = {"step_mm": "0"}

    def opener(ontology):
        return open_dicom(tmp_path / "Quarzberg_Akte", ontology, ONTOLOGY, "train", report, options)

    build_corpus(tmp_path / "corpus", [opener], ONTOLOGY, report)
    told = capfd.readouterr()
    corpus = open_corpus(tmp_path / "corpus")
    examples = list(corpus.source("dicom", "train"))
    assert examples and any(example.regions for example in examples)
    assert len({example.group for example in examples}) == 2
    needles = {word.encode(charset) for word in words(datasets) for charset in ("utf-8", "latin-1", "utf-16-le")}
    for path in (tmp_path / "corpus").rglob("*"):
        held = os_name(path) + (path.read_bytes() if path.is_file() else b"")
        assert [needle for needle in needles if needle in held] == []
    for text in (told.err, told.out):
        assert [needle for needle in needles if needle in text.encode()] == []
    assert report.strict is False and "skipped: " in told.err


def words(datasets) -> set[str]:
    found = {word for value in SECRETS.values() for word in value.split("^")} | {"Quärzberg", "Otto", "0816", FILE_NAME}
    for one in datasets:
        for key in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            found.add(str(getattr(one, key)))
    return {word for word in found if len(word) >= 4} | {"Quarzberg", "Geheim"}


def os_name(path) -> bytes:
    return str(path.name).encode("utf-8", "surrogateescape")


@pytest.mark.slow
def test_the_command_keeps_patients_to_itself(tmp_path):
    datasets = write_clinic(tmp_path / "Akte")
    command = [sys.executable, "-m", "data.build", "--source=dicom", "--input=Akte", "--output=corpus", "--split=train"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    told = (done.stdout + done.stderr).decode()
    assert [word for word in words(datasets) if word in told] == []
