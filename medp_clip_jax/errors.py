"""What the user gets instead of a traceback."""

import sys
from collections.abc import Callable, Sequence

from absl import app, logging


class InputError(ValueError):
    """Something the user supplied cannot be used.

    The message is one line: it names the file and record, says what was expected, what came, and what to do.
    """


def run_cli(main: Callable[[Sequence[str]], object]) -> None:
    """Runs an absl `main`; an `InputError` becomes one line on stderr and exit code 2."""

    def guarded(argv: Sequence[str]) -> int:
        logging.set_verbosity(logging.WARNING)  # the libraries' progress notes are not the user's
        try:
            main(argv)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        return 0

    app.run(guarded)
