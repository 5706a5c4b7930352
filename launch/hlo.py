"""Reads the text of a compiled XLA program: which collectives run, how often, and what they move.

XLA's own cost analysis takes the body of a loop once and says nothing about links, so this follows the calls from the
entry computation, multiplies by the trip counts of loops, and looks at which slices a collective's group spans.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

BITS = {"pred": 8, "token": 0, "opaque": 0}  # the others carry their width in their name: bf16, f8e4m3fn, s4
KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "ragged-all-to-all", "collective-permute")
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([0-9,]*)\]")
# A mesh of named axes, the order of its devices, and the axes that a group runs along.
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?,? \{((?:'\w+'(?:, ?)?)+)\}"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str  # as printed, layouts included
    opcode: str
    operands: tuple[str, ...]  # names; of a constant or parameter, its literal or number
    attributes: str
    root: bool

    def attribute(self, name: str) -> str | None:
        """The text of `name=...` up to the next comma outside braces and brackets."""
        found = re.search(rf"\b{name}=", self.attributes)
        return next(_split(self.attributes[found.end() :]), None) if found else None


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
    """The computations of a module by name."""

    computations: dict[str, Computation]
    entry: str


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind in one place of the program."""

    kind: str
    name: str
    count: int  # executions per step
    moved: float  # bytes that each device receives per execution, with a bandwidth-optimal algorithm
    group: int  # devices, or slices, that take part in one of them
    dcn: bool  # whether a group spans slices
    source: str  # the jax operation that it comes from

    @property
    def total(self) -> float:
        """Bytes that each device receives per step."""
        return self.count * self.moved


def parse(text: str) -> Program:
    """The computations in the text of a module, such as `compiled.as_text()` gives."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            head = re.match(r"(ENTRY )?%?([^\s(]+) \(.*\{$", line)
            if head:
                current = computations.setdefault(head[2], {})
                entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    return Program(computations, entry)


def executions(program: Program) -> dict[str, int]:
    """How often each computation runs per step: loop bodies as often as their trips, branches once each."""
    counts: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        counts[name] = counts.get(name, 0) + times
        for instruction in program.computations[name].values():
            if instruction.opcode in ("async-update", "async-done"):
                continue  # the same call as their async-start
            trips = trip_count(program, name, instruction) if instruction.opcode == "while" else 1
            for role, callee in _callees(instruction):
                if role != "to_apply" or instruction.opcode == "call":
                    visit(callee, times * trips)

    visit(program.entry, 1)
    return counts


def trip_count(program: Program, computation: str, loop: Instruction) -> int:
    """Trips of a loop: the compiler's note, else from its counter's start, step and bound; 1 where it is not known."""
    noted = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if noted:
        return int(noted[1])
    condition = program.computations[loop.attribute("condition").lstrip("%")]
    body = program.computations[loop.attribute("body").lstrip("%")]
    test = _follow(condition, _root(condition).name)
    if test.opcode != "compare" or test.attribute("direction") not in ("LT", "LE"):
        return 1
    counter, bound = (_follow(condition, name) for name in test.operands)
    if counter.opcode != "get-tuple-element" or bound.opcode != "constant":
        return 1
    index = int(counter.attribute("index"))
    step = _follow(body, _follow(body, _root(body).name).operands[index])
    amounts = [_follow(body, name) for name in step.operands if _follow(body, name).opcode == "constant"]
    start = _follow(program.computations[computation], _start(program.computations[computation], loop, index))
    if step.opcode != "add" or len(amounts) != 1 or start.opcode != "constant":
        return 1
    last = int(bound.operands[0]) + (test.attribute("direction") == "LE")
    return max(0, math.ceil((last - int(start.operands[0])) / int(amounts[0].operands[0])))


def collectives(program: Program, slices: Sequence[int] = ()) -> list[Collective]:
    """Every collective that a step executes; `slices` is the slice of each device of the program, in its order.

    A program for several slices has one part per slice; what crosses them stands there as sends to TPU's Megascale.
    """
    found = []
    for name, times in executions(program).items():
        computation = program.computations[name]
        # One transfer that runs beside several fusions is printed in each; only the first one starts it.
        starts = any("AsyncCollectiveStart" in each.attributes for each in computation.values())
        for each in computation.values():
            if "async_collective_fusion_config" in each.attributes and not starts:
                continue
            collective = _collective(computation, name, each, times, slices)
            if collective is not None:
                found.append(collective)
    return found


def size(shape: str) -> float:
    """Bytes of a printed shape, a tuple's parts together."""
    return sum(bits(kind) * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in _ARRAY.findall(shape)) / 8


def bits(kind: str) -> int:
    """Width of an element type such as `bf16`, `s4` or `f8e4m3fn`."""
    return BITS[kind] if kind in BITS else int(re.search(r"\d+", kind)[0])


def groups(instruction: Instruction, devices: int) -> list[list[int]]:
    """The groups of devices that a collective joins, from any notation of `replica_groups` or from the pairs.

    Raises:
      ValueError: a notation that is not known.
    """
    pairs = instruction.attribute("source_target_pairs")
    if pairs is not None:
        return [[int(n) for n in pair.split(",")] for pair in re.findall(r"\{(\d+,\d+)\}", pairs)]
    text = instruction.attribute("replica_groups") or "{}"
    if text == "{}":
        return [list(range(devices))]
    if text.startswith("{"):
        return [_numbers(group) for group in re.findall(r"\{([\d,]+)\}", text)]
    iota = re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?$", text)
    if iota:
        return _iota(iota[2], iota[3]).reshape(_numbers(iota[1])).tolist()
    mesh = _MESH.search(instruction.attributes)
    if not mesh:
        raise ValueError(f"replica_groups of {instruction.name}: unknown notation {text}")
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    order = _iota(mesh[2] or ",".join(map(str, sizes.values())), mesh[3]).reshape(list(sizes.values()))
    joined = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", mesh[4])]
    rest = [axis for axis in range(len(sizes)) if axis not in joined]
    return order.transpose(rest + joined).reshape(-1, math.prod(order.shape[axis] for axis in joined)).tolist()


def _iota(dims: str, permutation: str | None) -> np.ndarray:
    """The devices in order, reshaped and transposed."""
    devices = np.arange(math.prod(_numbers(dims))).reshape(_numbers(dims))
    return devices.transpose(_numbers(permutation)) if permutation else devices


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def _collective(
    computation: Computation, name: str, each: Instruction, times: int, slices: Sequence[int]
) -> Collective | None:
    if each.opcode == "send" and "megascale" in each.attributes:
        return _megascale(computation, each, times)
    kind = each.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # how TPUs print a fused one
    members = groups(each, len(slices) or 1)
    if kind == "collective-permute":
        members = [pair for pair in members if pair[0] != pair[1]]
    count = max((len(group) for group in members), default=1)
    data = sum(size(computation[operand].shape) for operand in each.operands if operand in computation)
    crosses = any(len({slices[device] for device in group if device < len(slices)}) > 1 for group in members)
    return Collective(kind, each.name, times, _received(kind, data, count), count, crosses, _source(each))


def _received(kind: str, operand: float, members: int) -> float:
    """Bytes that a device receives, with rings: Chan et al., Collective communication, 2007, section 3."""
    share = (members - 1) / members
    factor = {"all-gather": members - 1, "all-reduce": 2 * share, "reduce-scatter": share, "collective-permute": 1.0}
    return operand * (factor.get(kind, share) if members > 1 else 0.0)


def _megascale(computation: Computation, send: Instruction, times: int) -> Collective:
    """A collective between slices: one device of each slice takes part, after a reduction inside the slices."""
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', send.attributes)
    target = re.search(r'_xla_megascale_target="\{([\d,:]+)\}', send.attributes)
    members = _listed(target[1]) if target else 2
    kind = kind[1].lower().replace("_", "-") if kind else "send"
    data = size(computation[send.operands[0]].shape)
    return Collective(kind, send.name, times, _received(kind, data, members), members, True, _source(send))


def _source(each: Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', each.attributes)
    return found[1] if found else ""


def _listed(text: str) -> int:
    """How many numbers `1,2` or `0:15` names."""
    ends = [[int(n) for n in part.split(":")] for part in text.split(",")]
    return sum(part[-1] - part[0] + 1 for part in ends)


def _instruction(line: str) -> Instruction:
    head, rest = re.sub(r"/\*.*?\*/", "", line.strip()).split(" = ", 1)  # without notes such as /*index=5*/
    end = _close(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _close(rest, opening)
    operands = tuple(part.split()[-1].lstrip("%") for part in _split(rest[opening + 1 : closing]) if part.strip())
    name = head.removeprefix("ROOT ").lstrip("%")
    return Instruction(name, shape, rest[:opening], operands, rest[closing + 1 :], head.startswith("ROOT "))


def _close(text: str, opening: int) -> int:
    """Where the parenthesis that opens at `opening` closes."""
    depth = 0
    for place in re.finditer(r"[()]", text[opening:]):
        depth += 1 if place[0] == "(" else -1
        if not depth:
            return opening + place.start()
    return len(text) - 1


def _split(text: str) -> Iterator[str]:
    """Parts between commas that stand outside brackets."""
    depth, start = 0, 0
    for place in re.finditer(r"[()\[\]{},]", text):
        if place[0] == "," and not depth:
            yield text[start : place.start()].strip()
            start = place.end()
        elif place[0] != ",":
            depth += 1 if place[0] in "([{" else -1
    yield text[start:].strip()


def _callees(instruction: Instruction) -> Iterator[tuple[str, str]]:
    for role in ("calls", "to_apply", "body", "branch_computations", "true_computation", "false_computation"):
        names = instruction.attribute(role)
        for name in (names or "").strip("{}").split(","):
            if name.strip():
                yield role, name.strip().lstrip("%")


def _root(computation: Computation) -> Instruction:
    return next(each for each in computation.values() if each.root)


def _follow(computation: Computation, name: str) -> Instruction:
    """The instruction that a name stands for, through copies."""
    each = computation[name]
    while each.opcode in ("copy", "bitcast", "optimization-barrier", "opt-barrier") and each.operands[0] in computation:
        each = computation[each.operands[0]]
    return each


def _start(computation: Computation, loop: Instruction, index: int) -> str:
    init = _follow(computation, loop.operands[0])
    return init.operands[index] if init.opcode == "tuple" else init.name
