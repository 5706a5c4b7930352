"""What a build tells: one line for each record that cannot be used, on stderr, and the numbers at the end."""

import collections
import dataclasses
import sys

from medp_clip_jax.errors import InputError


@dataclasses.dataclass
class Report:
    """Collects what was left out, source by source. With `strict` the first bad record ends the build (InputError)."""

    strict: bool = False
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # reason -> records

    def skip(self, place: str, reason: str, detail: str) -> None:
        """Reports a record that is left out: where it stands, why (also what it is counted under), and what to look
        at."""
        if self.strict:
            raise InputError(f"{place}: {reason}: {detail}")
        self.skipped[reason] += 1
        print(f"skipped: {place}: {reason}: {detail}", file=sys.stderr)

    def warn(self, place: str, problem: str) -> None:
        """Reports what can be used, but should be looked at."""
        print(f"warning: {place}: {problem}", file=sys.stderr)

    def new_label(self, place: str, label: str, node: str) -> None:
        """Reports a label that the ontology does not know and that becomes a node of its own."""
        problem = f"label {label!r} is not in the ontology"
        if self.strict:
            raise InputError(f"{place}: {problem}: add it or a synonym, or build without --strict")
        print(f"new label: {place}: {problem}: added as {node!r}", file=sys.stderr)
