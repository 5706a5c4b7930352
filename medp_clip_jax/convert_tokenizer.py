"""The tokenizer of a checkpoint as one `tokenizer.json`, from whichever files the checkpoint comes with."""

import gzip
import json
from pathlib import Path

import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers

from medp_clip_jax.errors import InputError
from medp_clip_jax.tokenizer import END, START, WORDS, Tokenizer, load_tokenizer

OPENAI_MERGES = 49152 - 256 - 2  # of the merges in OpenAI's file, those that the vocabulary has


def find_tokenizer(source: Path, given: str = "") -> Tokenizer | None:
    """The tokenizer in a folder, or in the file or folder `given`; None where there is none.

    A tokenizer.json goes first, then CLIP's vocab.json with merges.txt, OpenAI's bpe_simple_vocab_16e6.txt.gz, and
    BERT's vocab.txt.

    Raises:
      InputError: `given` holds none, or a file is damaged.
    """
    place = Path(given) if given else source if source.is_dir() else source.parent
    found = _read(place)
    if found is None and given:
        raise InputError(
            f"{place}: no tokenizer; expected tokenizer.json, vocab.json with merges.txt, vocab.txt, or "
            "bpe_simple_vocab_16e6.txt.gz"
        )
    if found is None and any(place.glob("*.model")):
        raise InputError(
            f"{place}: a SentencePiece model only; save the tokenizer.json of transformers' fast tokenizer beside it"
        )
    return found


def _read(place: Path) -> Tokenizer | None:
    try:
        if place.is_file() and place.suffix == ".gz":
            return clip_tokenizer(gzip.decompress(place.read_bytes()).decode("utf-8"), str(place))
        if place.is_file() and place.suffix == ".txt":
            return bert_tokenizer(place)
        if place.is_file():
            return load_tokenizer(place)
        if (place / "tokenizer.json").is_file():
            return load_tokenizer(place / "tokenizer.json")
        if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
            vocab = json.loads((place / "vocab.json").read_text("utf-8"))
            merges = (place / "merges.txt").read_text("utf-8").split("\n")[1:]
            pairs = [tuple(line.split()) for line in merges if line.strip()]
            return _clip(vocab, pairs, str(place))
        for path in sorted(place.glob("bpe_simple_vocab*.gz")):
            return clip_tokenizer(gzip.decompress(path.read_bytes()).decode("utf-8"), str(path))
        if (place / "vocab.txt").is_file():
            return bert_tokenizer(place / "vocab.txt")
    except InputError:
        raise
    except Exception as error:  # the library raises bare Exception, gzip and json their own
        raise InputError(f"{place}: not a readable tokenizer ({error}); restore its files") from None
    return None


def clip_tokenizer(merges: str, origin: str = "merges") -> Tokenizer:
    """OpenAI's tokenizer from the text of its merges: bytes, bytes that end a word, merges, the two special tokens."""
    pairs = [tuple(line.split()) for line in merges.split("\n")[1 : OPENAI_MERGES + 1] if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(f"{origin}: expected two parts in every line after the first; use OpenAI's file")
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in pairs), START, END]
    return _clip({word: i for i, word in enumerate(words)}, pairs, origin)


def _clip(vocab: dict[str, int], pairs: list[tuple[str, ...]], origin: str) -> Tokenizer:
    model = models.BPE(vocab, pairs, unk_token=END, end_of_word_suffix="</w>")
    backend = tokenizers.Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.add_special_tokens([START, END])
    return Tokenizer(backend, origin)


def _byte_letters() -> list[str]:
    """The letters for bytes in OpenAI's order: printable ones stand for themselves and come first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + i) for i in range(len(others)))]


def bert_tokenizer(path: Path) -> Tokenizer:
    """BERT's uncased WordPiece from a vocab.txt, one token a line."""
    words = path.read_text("utf-8").splitlines()
    backend = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens([token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if token in words])
    return Tokenizer(backend, str(path))
