"""Text to token ids: a byte-level BPE over lower-cased text through the `tokenizers` library, in CLIP's layout.

`<|startoftext|>` comes first, `<|endoftext|>` last and has the vocabulary's highest id (the text tower pools there);
zeros follow.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from medp_clip_jax.errors import InputError

START, END = "<|startoftext|>", "<|endoftext|>"


class Tokenizer:
    """Wraps a `tokenizers.Tokenizer` that has the two special tokens, the end the highest id (else InputError)."""

    def __init__(self, backend: tokenizers.Tokenizer, origin: str = "tokenizer"):
        start, end = backend.token_to_id(START), backend.token_to_id(END)
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        if start is None or end != self.vocab_size - 1:
            raise InputError(f"{origin}: expected {START} and, as the highest id, {END}; use a CLIP tokenizer.json")
        self.start, self.end = start, end
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # a text that spells a special token must not smuggle in its id
        self._backend = backend
        self.fingerprint = hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def __call__(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Encodes any strings to int32 [texts, length]: start, tokens, end, zeros; a long text loses its tail."""
        if isinstance(texts, str) or length < 3:
            raise InputError(f"tokenizer: expected a list of texts and length >= 3, got {texts!r:.60}, {length}")
        # Half a surrogate pair is a valid str but not valid Unicode.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        tokens = np.zeros((len(clean), length), np.int32)
        for row, encoding in zip(tokens, self._backend.encode_batch(clean, add_special_tokens=False), strict=True):
            ids = [self.start, *encoding.ids[: length - 2], self.end]
            row[: len(ids)] = ids
        return tokens

    def to_json(self) -> str:
        """The content of `tokenizer.json`; equal tokenizers give equal text."""
        return json.dumps(json.loads(self._backend.to_str()), ensure_ascii=False, sort_keys=True, indent=0)

    def save(self, path: str | Path) -> None:
        """Writes a `tokenizer.json` that `load_tokenizer` and Hugging Face's libraries read."""
        Path(path).write_text(self.to_json(), "utf-8")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains on `texts`; the same texts in any order and on any machine give the same tokenizer.

    The vocabulary has exactly `vocab_size` entries (at least 258: bytes and two special tokens): too few texts leave
    unused entries rather than another size, so that a model's shapes follow from its config.
    """
    if vocab_size < 258:
        raise InputError(f"tokenizer: expected vocab_size >= 258 (256 bytes and 2 special tokens), got {vocab_size}")
    backend = _blank(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=[],
    )
    clean = sorted(text.encode("utf-8", "replace").decode() for text in texts)
    backend.train_from_iterator(clean, trainer)
    learned = json.loads(backend.to_str())["model"]
    vocab, merges = dict(learned["vocab"]), [tuple(merge) for merge in learned["merges"]]
    while len(vocab) < vocab_size - 2:
        vocab[f"<|unused{len(vocab)}|>"] = len(vocab)
    vocab |= {START: vocab_size - 2, END: vocab_size - 1}
    backend = _blank(models.BPE(vocab=vocab, merges=merges))
    backend.add_special_tokens([START, END])
    return Tokenizer(backend)


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Reads a `tokenizer.json`, ours or OpenAI CLIP's; InputError if absent, damaged or without the special tokens."""
    try:
        backend = tokenizers.Tokenizer.from_str(Path(path).read_text("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a readable tokenizer.json ({error}); give the model's own file") from None
    return Tokenizer(backend, str(path))


def _blank(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Strip(), normalizers.Lowercase()])
    # The space before each word stays with the word: "liver" is the same token at the start of a text and within it.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    return backend
