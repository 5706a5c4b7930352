"""Python files that define something by a function: sweeps (`get_sweep`) and evaluation sets (`get_eval`)."""

import runpy
from collections.abc import Collection

import ml_collections

from medp_clip_jax.errors import InputError


def read(path: str, function: str, fields: Collection[str], flag: str) -> ml_collections.ConfigDict:
    """What `function` returns in a file, `FILE` or `FILE:ARGUMENT`; `flag` is the command's that names it.

    Raises:
      InputError: there is no such file or function, or it returns no ConfigDict or one with other fields.
    """
    file, _, argument = path.partition(":")
    try:
        defined = runpy.run_path(file)
    except OSError as error:
        raise InputError(f"--{flag}={path}: {error.strerror}; expected a file with {function}()") from error
    if function not in defined:
        raise InputError(f"--{flag}={path}: expected a function {function}() in it, found none")
    found = defined[function](*([argument] if argument else []))
    if not isinstance(found, ml_collections.ConfigDict) or set(found) - set(fields):
        raise InputError(f"{path}: {function}() must return a ConfigDict with fields among {', '.join(fields)}")
    return found
