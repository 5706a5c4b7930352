"""What a build tells: one line for each record that cannot be used, on stderr, and the numbers at the end."""

import collections
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator

from medp_clip_jax.errors import InputError


@dataclasses.dataclass
class Report:
    """Collects what was left out, source by source. With `strict` the first bad record ends the build (InputError)."""

    strict: bool = False
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # reason -> records
    kept_back: list[str] | None = None  # lines of the shard in the making, told when it is complete

    def skip(self, place: str, reason: str, detail: str) -> None:
        """Reports a record that is left out: where it stands, why (also what it is counted under), and what to look
        at."""
        if self.strict:
            raise InputError(f"{place}: {reason}: {detail}")
        self.skipped[reason] += 1
        self._tell(f"skipped: {place}: {reason}: {detail}")

    def warn(self, place: str, problem: str) -> None:
        """Reports what can be used, but should be looked at."""
        self._tell(f"warning: {place}: {problem}")

    def new_label(self, place: str, label: str, node: str) -> None:
        """Reports a label that the ontology does not know and that becomes a node of its own."""
        problem = f"label {label!r} is not in the ontology"
        if self.strict:
            raise InputError(f"{place}: {problem}: add it or a synonym, or build without --strict")
        self._tell(f"new label: {place}: {problem}: added as {node!r}")

    @contextlib.contextmanager
    def apart(self) -> Iterator[tuple[list[str], collections.Counter[str]]]:
        """Inside, lines and counts go to the two containers that this yields instead of stderr and `skipped`: a shard
        keeps them beside its records, so that they are told once and in order, whichever process made it and when."""
        before = self.kept_back, self.skipped
        self.kept_back, self.skipped = [], collections.Counter()
        try:
            yield self.kept_back, self.skipped
        finally:
            self.kept_back, self.skipped = before

    def __reduce__(self):
        """All copies that reach another process are one report there, whatever they came with."""
        return _here, (self.strict,)

    def _tell(self, line: str) -> None:
        if self.kept_back is None:
            print(line, file=sys.stderr)
        else:
            self.kept_back.append(line)


@functools.cache
def _here(strict: bool) -> Report:
    return Report(strict)
