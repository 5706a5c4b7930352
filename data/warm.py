"""What worker processes are born with: imported once, by the process that they are forked from."""

import warnings

import data.build  # noqa: F401  (with it all adapters and their libraries)

# Each worker runs the program's main module again, under another name; this one it already has.
warnings.filterwarnings("ignore", "'data.build' found in sys.modules", RuntimeWarning)
