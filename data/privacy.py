"""Keeps patients out of a corpus: salted hashes in place of identifiers, and a warning where faces may be rebuilt.

Names, numbers, UIDs and file names of clinical data become `group_hash`es before anything is written or printed. The
salt is a secret file of the owner of the input: with it, and only with it, the same patient gets the same hash again,
and a hash can be looked up: `python -m data.privacy --source=NAME IDENTIFIER ...`.
"""

import csv
import dataclasses
import hashlib
import hmac
import os
import pathlib
import secrets
import sys
from collections.abc import Iterable, Sequence

from absl import flags

from data.report import Report
from data.sources import files
from medp_clip_jax.errors import InputError, run_cli

ENVIRONMENT = "MEDP_CLIP_SALT_FILE"
SHORTEST = 16  # bytes of a salt
# What lets a face be drawn from a volume, as words of a body part or label.
HEAD = frozenset("brain head skull face facial neck orbit eye eyes eyeball nose mandible sinus sinuses ear".split())
VOLUMETRIC = ("ct", "mri", "pet", "cbct")


def group_hash(source: str, identifier: str, salt: bytes) -> str:
    """16 hexadecimal digits that stand for an identifier of a source: HMAC-SHA256 (RFC 2104) keyed with the salt.

    Equal identifiers of one source get equal hashes; without the salt they can be neither computed nor tried out.
    """
    message = os.fsencode(source) + b"\0" + identifier.encode("utf-8", "surrogateescape")
    return hmac.new(salt, message, hashlib.sha256).hexdigest()[:16]


def read_salt(stated: str = "") -> bytes:
    """The salt in the file that is stated, else named by MEDP_CLIP_SALT_FILE, else in the user's configuration folder.

    A file that does not exist is made, with 32 random bytes and readable by its owner only, and a line on stderr says
    where. Raises InputError if it cannot be read or made, or is too short.
    """
    home = pathlib.Path(os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config")
    path = pathlib.Path(stated or os.environ.get(ENVIRONMENT) or home / "medp_clip_jax" / "salt")
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            print(
                f"note: {path}: new salt for hashes of identifiers: keep it safe, and out of corpora", file=sys.stderr
            )
        salt = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the salt cannot be read or made ({error.strerror}): name a file by --option=salt_file= or "
            f"{ENVIRONMENT}"
        ) from error
    if len(salt) < SHORTEST:
        raise InputError(f"{path}: a salt of {len(salt)} bytes: give at least {SHORTEST} random ones")
    return salt


@dataclasses.dataclass(frozen=True)
class Names:
    """What identifiers of a source are called in the corpus: their hash, or without a salt themselves."""

    source: str
    salt: bytes | None

    def of(self, identifier: str) -> str:
        """The name that may be written and printed."""
        return files.shown(identifier) if self.salt is None else group_hash(self.source, identifier, self.salt)

    def fingerprint(self) -> str:
        """Changes with the salt, and tells nothing of it."""
        return "" if self.salt is None else group_hash(self.source, "fingerprint of the salt", self.salt)


def write_key(path: pathlib.Path, names: Names, identifiers: Iterable[str]) -> None:
    """Writes the table hash -> identifier for the owner of the data; InputError if the place does not take it."""
    try:
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline=""
        ) as file:
            rows = sorted({(names.of(identifier), identifier) for identifier in identifiers})
            csv.writer(file).writerows(
                [("hash", "identifier"), *((a, os.fsencode(b).decode(errors="replace")) for a, b in rows)]
            )
    except OSError as error:
        raise InputError(
            f"{path}: the key cannot be written there ({error.strerror}): choose another --option=key_file="
        ) from error


def shows_face(modality: str, anatomy: str, labels: Iterable[str]) -> bool:
    """Whether volumes of this modality, body part and labels may show a face that can be rebuilt."""
    parts = {part for label in labels for part in label.lower().replace("_", " ").replace("-", " ").split()}
    parts.discard("head")  # of a femur, a pancreas
    found = parts | set(anatomy.lower().replace("_", " ").split())
    return modality.split(" ")[0].lower() in VOLUMETRIC and bool(found & HEAD)


def warn_of_faces(place: str, report: Report) -> None:
    """Tells that volumes of the head go into the corpus."""
    report.warn(
        place,
        "volumes of the head: a face can be rebuilt from their slices and recognised: build from defaced volumes "
        "(pydeface, mri_deface, quickshear), or keep the corpus as confidential as the patients",
    )


def define_flags() -> None:
    """The command line of the look-up."""
    flags.DEFINE_string("source", None, "Name of the source in the corpus.", required=True)
    flags.DEFINE_string("salt_file", "", f"File with the salt; by default that of {ENVIRONMENT}, or of the user.")


def main(argv: Sequence[str]) -> None:
    """Prints the hash of each identifier given as an argument."""
    if len(argv) < 2:
        raise InputError("no identifier: give patient ids, UIDs or file names as arguments")
    salt = read_salt(flags.FLAGS.salt_file)
    for identifier in argv[1:]:
        print(group_hash(flags.FLAGS.source, identifier, salt), identifier)


if __name__ == "__main__":
    define_flags()
    run_cli(main)
