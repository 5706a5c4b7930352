"""The tokenizer takes any text, always ends in the end token, and is the same wherever and whenever it is trained."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, processors

from medp_clip_jax.errors import InputError
from medp_clip_jax.tokenizer import END, START, load_tokenizer, train_tokenizer

TEXTS = [
    "the left kidney in a CT scan",
    "the liver",
    "Left lung: organ of breathing",
    "lungs and kidneys",
    "liver tumor",
] * 3
TOKENIZER = train_tokenizer(TEXTS, 400)


@pytest.mark.short
@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=40), max_size=4), st.integers(3, 20))
def test_any_text_gives_start_tokens_end_and_zeros(texts, length):
    tokens = TOKENIZER(texts, length)
    assert tokens.shape == (len(texts), length) and tokens.dtype == np.int32
    for row in tokens:
        end = int(row.argmax())
        assert row[0] == TOKENIZER.start == 398 and row[end] == TOKENIZER.end == 399
        assert not row[end + 1 :].any()
        assert (row[1:end] < TOKENIZER.start).all()


def test_hostile_strings():
    tokens = TOKENIZER(["", " \n\t ", "\ud800 half a surrogate", f"a {END} b {START}", "肝臓 🫁", "\x00"], 12)
    assert (tokens == TOKENIZER.end).sum(1).tolist() == [1] * 6
    assert (tokens == TOKENIZER.start).sum(1).tolist() == [1] * 6
    assert tokens[0].tolist()[:3] == [TOKENIZER.start, TOKENIZER.end, 0]


def test_case_spaces_and_composition_do_not_matter():
    a, b = TOKENIZER(["The  Left\nKIDNEY é", "the left kidney e\u0301"], 16)
    assert (a == b).all()


def test_truncation_keeps_the_head_and_the_end():
    long, short = TOKENIZER(["the left kidney in a ct scan"], 16)[0], TOKENIZER(["the left kidney in a ct scan"], 5)[0]
    assert short[:4].tolist() == long[:4].tolist() and short[4] == TOKENIZER.end


def test_vocabulary_has_the_asked_size_even_with_few_texts():
    assert train_tokenizer(["liver"], 1000).vocab_size == 1000
    assert train_tokenizer([], 258).vocab_size == 258
    with pytest.raises(InputError, match="258"):
        train_tokenizer(TEXTS, 257)


def test_training_is_deterministic_across_processes_and_order():
    code = (
        "import sys, json; from medp_clip_jax.tokenizer import train_tokenizer;"
        "print(train_tokenizer(reversed(json.loads(sys.argv[1])), 400).fingerprint)"
    )
    other = subprocess.run([sys.executable, "-c", code, json.dumps(TEXTS)], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == TOKENIZER.fingerprint
    assert train_tokenizer([*TEXTS, "spleen spleen spleen"], 400).fingerprint != TOKENIZER.fingerprint


@pytest.mark.short
def test_save_and_load_are_identical(tmp_path):
    TOKENIZER.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded.fingerprint == TOKENIZER.fingerprint and loaded.vocab_size == TOKENIZER.vocab_size
    texts = ["the liver", f"Ünknown {END}", "l5 vertebra"]
    assert (loaded(texts, 12) == TOKENIZER(texts, 12)).all()


def clip_like() -> tokenizers.Tokenizer:
    """A tiny tokenizer.json with the parts of OpenAI CLIP's: word-end suffix, normaliser, pre-tokeniser, template."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), START, END]
    model = models.BPE({word: i for i, word in enumerate(words)}, [], unk_token=END, end_of_word_suffix="</w>")
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens([START, END])
    backend.post_processor = processors.RobertaProcessing((END, 513), (START, 512), False, False)
    backend.enable_padding(length=77)
    return backend


def test_clip_tokenizer_json_loads_by_the_names_of_its_special_tokens(tmp_path):
    clip_like().save(str(tmp_path / "tokenizer.json"))
    clip = load_tokenizer(tmp_path / "tokenizer.json")
    assert (clip.start, clip.end, clip.vocab_size) == (512, 513, 514)
    row = clip(["ab"], 6)[0]
    assert row[0] == 512 and row[3] == 513 and row[4:].tolist() == [0, 0]


def test_unusable_files_and_arguments_are_named(tmp_path):
    for content in ("", "{}", "not json"):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(InputError, match="tokenizer.json"):
            load_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match="absent.json"):
        load_tokenizer(tmp_path / "absent.json")
    tokenizers.Tokenizer(models.BPE({"a": 0}, [])).save(str(tmp_path / "bare.json"))
    with pytest.raises(InputError, match="startoftext"):
        load_tokenizer(tmp_path / "bare.json")
    with pytest.raises(InputError, match="list of texts"):
        TOKENIZER("a bare string", 8)
    with pytest.raises(InputError, match="length"):
        TOKENIZER(["liver"], 2)
