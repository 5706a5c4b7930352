"""The label bank: tokens and hierarchy mask of every label, in the order asked for."""

import numpy as np
import pytest

import data.ontology
from medp_clip_jax.errors import InputError
from medp_clip_jax.labels import make_bank
from medp_clip_jax.tokenizer import train_tokenizer

ONTOLOGY = data.ontology.load()
IDS = ("neutrophil", "white_blood_cell", "liver", "no_finding")
TOKENIZER = train_tokenizer([line for node_id in ONTOLOGY for line in ONTOLOGY.sentences(node_id)], 2048)


@pytest.mark.short
def test_bank_has_one_row_per_label_and_one_sentence_per_variant():
    bank = make_bank(ONTOLOGY, IDS, TOKENIZER, 6, 24)
    assert bank.tokens.shape == (4, 6, 24) and bank.tokens.dtype == np.int32
    assert bank.excluded.tolist() == ONTOLOGY.excluded(IDS).tolist()
    assert [bank.index[node_id] for node_id in IDS] == [0, 1, 2, 3]
    for row, node_id in enumerate(IDS):
        assert (bank.tokens[row] == TOKENIZER(ONTOLOGY.sentences(node_id)[:6], 24)).all()
    assert (bank.tokens.max(-1) == TOKENIZER.end).all()


def test_fewer_sentences_than_variants_repeat_in_turn():
    count = len(ONTOLOGY.sentences("liver"))
    bank = make_bank(ONTOLOGY, ["liver"], TOKENIZER, 2 * count + 1, 24)
    assert (bank.tokens[0, :count] == bank.tokens[0, count : 2 * count]).all()
    assert (bank.tokens[0, 0] == bank.tokens[0, -1]).all()


def test_most_sentences_fit_24_tokens_and_no_two_labels_share_one():
    lines = [line for node_id in ONTOLOGY for line in ONTOLOGY.sentences(node_id)]
    tokens = TOKENIZER(lines, 64)
    assert (tokens.argmax(-1) < 24).mean() > 0.95
    names = TOKENIZER([ONTOLOGY[node_id].name for node_id in ONTOLOGY], 24)
    assert len(np.unique(names, axis=0)) == len(ONTOLOGY)


@pytest.mark.parametrize(("ids", "variants"), [(("liver", "liver"), 2), ((), 2), (("liver",), 0), (("nowhere",), 2)])
def test_bad_requests_are_refused(ids, variants):
    with pytest.raises(InputError):
        make_bank(ONTOLOGY, ids, TOKENIZER, variants, 24)
