"""Text to token ids through the `tokenizers` library, in the layout that the text tower was trained with.

Ours is CLIP's: a byte-level BPE over lower-cased text; `<|startoftext|>` comes first, `<|endoftext|>` last and has the
vocabulary's highest id (the text tower pools there); zeros follow. Imported towers may have BERT's, [CLS] text [SEP],
or SigLIP's, text and end; both with a padding of their own.
"""

import hashlib
import html
import json
import string
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import ftfy
import numpy as np
import regex
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from medp_clip_jax.errors import InputError

START, END = "<|startoftext|>", "<|endoftext|>"
LAYOUTS = {  # name -> the tokens for start, end and padding; CLIP pads with id 0, whatever that is
    "clip": (START, END, None),
    "bert": ("[CLS]", "[SEP]", "[PAD]"),
    "siglip2": (None, "<eos>", "<pad>"),
    "siglip": (None, "</s>", "</s>"),
}
# OpenAI's words: endings of contractions, runs of letters, single digits, runs of anything else but spaces.
WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_WORDS = regex.compile(WORDS)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer:
    """Wraps a `tokenizers.Tokenizer` with the special tokens of a layout, CLIP's end the last id (else InputError)."""

    def __init__(self, backend: tokenizers.Tokenizer, origin: str = "tokenizer"):
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        self.layout, special = "", {}
        for name, tokens in LAYOUTS.items():
            special = {token: backend.token_to_id(token) for token in tokens if token}
            if None not in special.values():
                self.layout = name
                break
        if not self.layout or (self.layout == "clip" and special[END] != self.vocab_size - 1):
            raise InputError(
                f"{origin}: expected {START} and, as the highest id, {END}, or the special tokens of BERT or SigLIP; "
                "use the tokenizer.json of a CLIP"
            )
        ids = {token: number for token, number in special.items() if number is not None}
        start, end, pad = LAYOUTS[self.layout]
        self.start, self.end, self.pad = (ids[start] if start else None), ids[end], (ids[pad] if pad else 0)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # a text that spells a special token must not smuggle in its id
        self._backend, self._json = backend, _canonical(backend)
        self.fingerprint = hashlib.sha256(self._json.encode()).hexdigest()[:12]
        cleaners: dict[str, Callable[[str], str | list[str]]] = {"siglip": canonicalize, "siglip2": str.lower}
        self._clean = cleaners.get(self.layout)
        self._openai = self.layout == "clip" and getattr(backend.model, "end_of_word_suffix", None) == "</w>"
        if self._openai:
            # Cleaned and split as OpenAI's does it: a tokenizer.json cannot say all of that, and the library's regular
            # expressions know fewer letters.
            self._clean = clip_words
            backend.normalizer = normalizers.Sequence([])
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def __call__(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Encodes any strings to int32 [texts, length]: start, tokens, end, padding; a long text loses its tail."""
        if isinstance(texts, str) or length < 3:
            raise InputError(f"tokenizer: expected a list of texts and length >= 3, got {texts!r:.60}, {length}")
        # Half a surrogate pair is a valid str but not valid Unicode.
        valid = [text.encode("utf-8", "replace").decode() for text in texts]
        clean = [self._clean(text) for text in valid] if self._clean else valid
        tokens = np.full((len(clean), length), self.pad, np.int32)
        first = [] if self.start is None else [self.start]
        encoded = self._backend.encode_batch_fast(clean, is_pretokenized=self._openai, add_special_tokens=False)
        for row, encoding in zip(tokens, encoded, strict=True):
            ids = [*first, *encoding.ids[: length - 1 - len(first)], self.end]
            row[: len(ids)] = ids
        return tokens

    def check_table(self, rows: int, origin: str) -> None:
        """Raises InputError unless a table of `rows` embeddings has one for each token, and CLIP's end is the last."""
        if self.vocab_size > rows or (self.layout == "clip" and self.vocab_size != rows):
            raise InputError(
                f"{origin}: {self.vocab_size} tokens, but the embedding table has {rows} rows; use the tokenizer that "
                "the text tower was trained with"
            )

    def to_json(self) -> str:
        """The content of `tokenizer.json`; equal tokenizers give equal text."""
        return self._json

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
    """Reads a `tokenizer.json`, ours, CLIP's, BERT's or SigLIP's; InputError if absent, damaged or neither."""
    try:
        backend = tokenizers.Tokenizer.from_str(Path(path).read_text("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path}: not a readable tokenizer.json ({error}); give the model's own file") from None
    return Tokenizer(backend, str(path))


def clip_words(text: str) -> list[str]:
    """Words as OpenAI's CLIP and open_clip see them: Unicode repaired, entities resolved twice, lower case, split."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return _WORDS.findall(" ".join(text.split()).lower())


def canonicalize(text: str) -> str:
    """As SigLIP's big_vision cleans a text: no punctuation, lower case, single spaces."""
    return " ".join(text.replace("_", " ").translate(_PUNCTUATION).lower().split())


def _canonical(backend: tokenizers.Tokenizer) -> str:
    return json.dumps(json.loads(backend.to_str()), ensure_ascii=False, sort_keys=True, indent=0)


def _blank(model: models.BPE) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Strip(), normalizers.Lowercase()])
    # The space before each word stays with the word: "liver" is the same token at the start of a text and within it.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    return backend
