"""Hashes that need the salt, salts that belong to their owner, and text in pixels that is seen."""

import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from benchmarks.burned_in_text import as_jpeg, draw, words
from data import burned_in, privacy
from data.report import Report
from medp_clip_jax.errors import InputError

SALT = b"0123456789abcdef0123456789abcdef"


@hypothesis.given(st.text(), st.text(), st.text(min_size=1), st.binary(min_size=16))
def test_a_hash_depends_on_source_identifier_and_salt_and_shows_none(source, identifier, other, salt):
    hypothesis.assume("\0" not in source + other and not any("\ud800" <= c <= "\udfff" for c in source + identifier))
    hashed = privacy.group_hash(source, identifier, salt)
    assert hashed == privacy.group_hash(source, identifier, salt) and len(hashed) == 16
    assert int(hashed, 16) >= 0
    assert hashed != privacy.group_hash(source, identifier, salt + b"1")
    assert hashed != privacy.group_hash(source, identifier + "x", salt)
    assert hashed != privacy.group_hash(source + "x", identifier, salt)


def test_a_salt_is_made_once_and_only_for_its_owner(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(privacy.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = privacy.read_salt()
    path = tmp_path / "config/medp_clip_jax/salt"
    assert "new salt" in capsys.readouterr().err and path.stat().st_mode & 0o077 == 0 and len(first) == 32
    assert privacy.read_salt() == first and capsys.readouterr().err == ""
    monkeypatch.setenv(privacy.ENVIRONMENT, str(tmp_path / "mine"))
    (tmp_path / "mine").write_bytes(SALT)
    assert privacy.read_salt() == SALT
    assert privacy.read_salt(str(path)) == first  # what is stated comes first


def test_salts_that_protect_nothing_are_refused(tmp_path):
    (tmp_path / "short").write_bytes(b"abc")
    for path, message in ((tmp_path / "short", "3 bytes"), (tmp_path, "cannot be read")):
        with pytest.raises(InputError, match=message):
            privacy.read_salt(str(path))


def test_an_owner_finds_a_hash_again(tmp_path):
    (tmp_path / "salt").write_bytes(SALT)
    command = [sys.executable, "-m", "data.privacy", "--source=clinic", f"--salt_file={tmp_path / 'salt'}", "P 17"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{privacy.group_hash('clinic', 'P 17', SALT)} P 17\n"


FACES = [
    *(("mri (t1)", "brain", "", True), ("ct", "head and neck", "", True), ("ct", "", "skull", True)),
    *(("ct", "abdomen", "liver", False), ("x-ray", "skull", "", False), ("ct", "hip", "femoral_head_left", False)),
    ("ultrasound", "fetal head", "", False),
]


@pytest.mark.parametrize(("modality", "anatomy", "label", "face"), FACES)
def test_volumes_that_may_show_a_face(modality, anatomy, label, face):
    assert privacy.shows_face(modality, anatomy, [label]) == face


@pytest.mark.parametrize("style", ["white", "black", "outlined", "opencv"])
def test_text_is_found_where_it_is(style):
    rng = np.random.default_rng(3)
    ground = rng.normal(60, 6, (240, 320)).clip(0, 255).astype(np.uint8)
    assert burned_in.text_lines(ground) == []
    found = 0
    for _ in range(10):
        drawn = draw(ground, words(rng), 18, style, rng)
        changed = np.argwhere(drawn != ground)
        (y0, x0), (y1, x1) = changed.min(0), changed.max(0)
        lines = burned_in.text_lines(as_jpeg(drawn, 90))
        found += any(a < x1 and c > x0 and b < y1 and d > y0 for a, b, c, d in lines)
        assert burned_in.text_lines(np.repeat(drawn[..., None], 3, -1)) == burned_in.text_lines(drawn)
    assert found >= 8


@pytest.mark.parametrize("values", [np.zeros((9, 5)), np.full((300, 200), 255), np.eye(64) * 255])
def test_images_without_text_pass(values):
    assert burned_in.text_lines(values.astype(np.uint8)) == []


def test_policies_of_text_in_pixels(capsys):
    rng = np.random.default_rng(0)
    drawn = draw(np.zeros((200, 300), np.uint8), "MUELLER ERIKA", 20, "white", rng)
    report = Report()
    assert burned_in.keeps(drawn, "off", "image 1", report) and capsys.readouterr().err == ""
    assert burned_in.keeps(drawn, "flag", "image 1", report) and "burnt into" in capsys.readouterr().err
    assert not burned_in.keeps(drawn, "skip", "image 1", report) and report.skipped == {"text in the pixels": 1}
    blank = np.zeros((200, 300), np.uint8)
    assert burned_in.keeps(blank, "skip", "image 2", report) and not burned_in.keeps(blank, "skip", "3", report, True)
