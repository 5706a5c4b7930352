"""Models by name, those that this package brings and those of the Hugging Face Hub, and by path from disk."""

import re
from pathlib import Path

from medp_clip_jax.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SHIPPED = Path(__file__).parent / "releases"  # a folder per model that is part of this package
DEFAULT = "medp-clip-small"  # what commands use that are given no model
# What a release consists of; other files of a repository, such as pickles, are never fetched.
PATTERNS = ["*.json", "model*.safetensors", "SHA256SUMS", "README.md"]


def locate(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: `source` if there is one, else that of the model of this name.

    `model` is one that this package brings, `owner/model` one of the Hub, from its cache. `revision` is a commit, tag
    or branch of it; only a full commit never changes. Environment variables of huggingface_hub hold: `HF_HUB_OFFLINE=1`
    uses the cache alone, `HF_HOME` says where it is.

    Raises:
      InputError: there is no such folder, and no such model here, on the Hub or, offline, in its cache.
    """
    path = Path(source)
    if isinstance(source, str) and source in shipped() and not path.is_dir():
        path = SHIPPED / source
    if path.is_dir():
        if revision is not None:
            raise InputError(f"{path}: a folder, which has no revision {revision}; leave the revision out")
        return path
    # The first half of a mistyped path is often a folder, and its name is nobody else's business.
    if not isinstance(source, str) or not _NAME.fullmatch(source) or path.parent.is_dir() or path.exists():
        raise InputError(
            f"{source}: no such directory; expected the workdir of a training run, a release, "
            f"{' or '.join([*shipped(), 'a name owner/model'])}"
        )
    return _fetched(source, revision)


def shipped() -> list[str]:
    """Names of the models that this package brings."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def _fetched(name: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub import constants, errors

    at = f"{name} at {revision}" if revision else name
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
    except errors.LocalEntryNotFoundError as error:  # also without a network: the client then looks into the cache
        state = "offline mode is on" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        raise InputError(
            f"{at}: not a folder and not in the cache of the Hub, and {state}; fetch it where there is a network, or "
            "give a folder"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name}: the Hub has no revision {revision} of it; check the commit or tag") from error
    except errors.GatedRepoError as error:
        raise InputError(f"{name}: the Hub asks for agreement first; accept its terms there and log in") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{name}: no such folder, and no such model on the Hub; check the name") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{at}: cannot be fetched from the Hub ({reason}); try again, or give a folder") from error
