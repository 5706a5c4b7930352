"""An estimate of what a compiled step reads from and writes to HBM, from the text of the program."""

import math
import re

from launch.hlo import Computation, Instruction, Program, executions, size

_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([0-9,]*)\](\{[^}]*\})?")
# They name, regroup or wait for memory but touch none.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"),
    *("optimization-barrier", "opt-barrier", "partition-id", "replica-id", "recv", "send-done", "recv-done"),
    *("async-start", "async-update", "async-done", "copy-done", "domain", "slice-done"),
}
_SLICES = {"dynamic-slice", "slice", "gather"}


def hbm_bytes(program: Program) -> float:
    """Bytes per device and step between HBM and the rest of the chip, loop bodies as often as they run.

    Every instruction outside fusions reads its operands and writes its result; what lies in on-chip memory (memory
    space 1 and above) is free, and of an array that is only sliced or updated in part only that part counts.
    """
    fused = {
        (each.attribute("calls") or "").lstrip("%")
        for computation in program.computations.values()
        for each in computation.values()
        if each.opcode == "fusion"
    }
    total = 0.0
    for name, times in executions(program).items():
        if name not in fused:
            computation = program.computations[name]
            total += times * sum(_touched(program, computation, each) for each in computation.values())
    return total


def _touched(program: Program, computation: Computation, each: Instruction) -> float:
    if each.opcode in _FREE or each.opcode.endswith("-done") or "AllocateBuffer" in each.attributes:
        return 0.0
    shapes = [computation[name].shape for name in each.operands if name in computation]
    if each.opcode == "fusion":
        return _fusion(program.computations[each.attribute("calls").lstrip("%")], shapes, each)
    if each.opcode in _SLICES:
        return 2 * _in_hbm(each.shape)
    if each.opcode == "dynamic-update-slice":
        return 2 * _in_hbm(shapes[1])
    if each.opcode.endswith("-start"):  # (result, source, ...) of a copy, (source, result, ...) of a collective
        return sum(map(_in_hbm, _parts(each.shape)[:2]))
    return sum(map(_in_hbm, shapes)) + _in_hbm(each.shape)


def _fusion(body: Computation, shapes: list[str], call: Instruction) -> float:
    """What a fusion reads of its operands and writes of its results."""
    read = 0.0
    for each in body.values():
        if each.opcode == "parameter":
            shape = shapes[int(each.operands[0])]
            if _in_hbm(shape):
                read += min(_in_hbm(shape), _used(body, each))
    root = next(each for each in body.values() if each.root)
    results = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    written = 0.0
    for result, shape in zip(results, _parts(call.shape), strict=False):
        update = _behind(body, result)
        if update.opcode == "dynamic-update-slice":
            part = size(body[update.operands[1]].shape)
            written += min(_in_hbm(shape), part)
        else:
            written += _in_hbm(shape)
    return read + written


def _used(body: Computation, source: Instruction) -> float:
    """Bytes of a parameter that a fusion looks at."""
    total = 0.0
    for each in body.values():
        if source.name not in each.operands:
            continue
        if each.opcode == "bitcast":
            total += _used(body, each)
        elif each.opcode in _SLICES and each.operands[0] == source.name:
            total += size(each.shape)
        elif each.opcode != "dynamic-update-slice" or each.operands[0] != source.name:
            return math.inf
    return total


def _behind(body: Computation, each: Instruction) -> Instruction:
    while each.opcode == "bitcast":
        each = body[each.operands[0]]
    return each


def _parts(shape: str) -> list[str]:
    """The arrays of a shape as printed, of a tuple one by one."""
    return [match[0] for match in _ARRAY.finditer(shape)]


def _in_hbm(shape: str) -> float:
    """Bytes of the arrays of a shape that lie in HBM: no memory space, or space 0, in their layout."""
    return sum(size(part) for part in _parts(shape) if not re.search(r"S\([1-9]", part))
