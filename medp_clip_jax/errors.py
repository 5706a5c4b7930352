"""What the user gets instead of a traceback."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging


class InputError(ValueError):
    """Something the user supplied cannot be used.

    The message is one line: it names the file and record, says what was expected, what came, and what to do.
    """


def run_cli(main: Callable[[list[str]], object]) -> None:
    """Runs an absl `main`; unusable flags and an `InputError` become one line on stderr and exit code 2."""

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        # Overrides of a configuration are applied while flags are parsed, and fail with whatever the config raises.
        except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            reason = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
            if isinstance(error, (AttributeError, KeyError)):
                reason = (
                    f"no such configuration field: {reason}; fields of an empty section are set together, as a dict"
                )
            print(f"error: {reason}; see --help", file=sys.stderr)
            sys.exit(2)

    def guarded(argv: list[str]) -> int:
        logging.set_verbosity(logging.WARNING)  # the libraries' progress notes are not the user's
        try:
            main(argv)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    app.run(guarded, flags_parser=parse)
