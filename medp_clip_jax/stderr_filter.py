"""Says in one line what JAX's distributed service says in forty before it aborts: run by `processes.start` as a child.

When a process of a job dies, the service in the others writes its findings and a C++ stack trace to standard error and
calls abort(); nothing in Python can come before that. So standard error runs through this program, which passes
everything on except the service's own lines. It imports next to nothing, because every process of a job starts one.
"""

import os
import re
import signal
import sys

# Log lines of the C++ side look like `E1124 14:15:18.512870   14969 coordination_service.cc:1549] text`.
SERVICE = re.compile(
    rb"^[IWEF]\d{4} [\d:.]+ +\d+ ((coordination_service\w*|preemption_\w+|client)\.(cc|h):\d+\]"
    rb"|multihost\.py:\d+\] .*Reached preemption sync point)"
)
FATAL = b"Terminating process because the JAX distributed service"
CONTINUED = re.compile(rb"^(Additional GRPC error|:UNKNOWN:|RPC: |The tasks have crashed|\d+\s*$|\s*$)")
UNHEALTHY = re.compile(rb"unhealthy \(stopped sending heartbeats\):\s*\n((?:\d+\s*\n)+)")
AGAIN = "start again: the run continues from its last checkpoint"


def of(count: int) -> str:
    """The number of processes, if it is known: on TPUs JAX finds it out later."""
    return f" of {count}" if count else ""


def explain(text: bytes, process: int, count: int, heartbeat: int, start: int) -> str:
    """The one line for all that the service wrote before it gave up; `heartbeat` and `start` are limits in seconds."""
    silent = UNHEALTHY.search(text)
    if silent:
        dead = sorted({int(number) for number in silent.group(1).split()})
        which = ("process " if len(dead) == 1 else "processes ") + ", ".join(map(str, dead)) + of(count)
        return f"{which} died or cannot be reached (no sign of life for {heartbeat} s); {AGAIN}"
    this = f"process {process}{of(count)}" if process >= 0 else "this process"
    if b"RegisterTask" in text:
        return (
            f"{this} waited {start} s, but not all {count or 'the other'} processes arrived; look for an error "
            "in the output of the others, check that they reach the coordinator's address and port, and start again"
        )
    if process and b"Failed to send RPC" in text:
        return f"process 0{of(count)} died or cannot be reached (connection lost); {AGAIN}"
    reason = re.search(rb"absl::Status: ([^\n]*)", text)
    detail = reason.group(1).decode(errors="replace")[:300] if reason else "no reason given"
    return f"{this} lost the others ({detail}); {AGAIN}"


def main() -> None:
    """Copies standard input to standard error until its end, or until the service gives up."""
    parent, process, count, heartbeat, start = map(int, sys.argv[1:])
    # Schedulers signal every process of a step; this one ends with its parent.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pending, service, in_service = b"", b"", False
    while chunk := os.read(0, 65536):
        pending += chunk
        *lines, pending = pending.split(b"\n")
        if pending and not SERVICE.match(pending) and not in_service:
            lines.append(pending)  # a prompt or a progress bar; the service ends its lines
            pending, ended = b"", False
        else:
            ended = True
        for index, line in enumerate(lines):
            in_service = bool(SERVICE.match(line)) or in_service and bool(CONTINUED.match(line))
            if in_service:
                service += line + b"\n"
            else:
                os.write(2, line + (b"\n" if ended or index < len(lines) - 1 else b""))
            if FATAL in line:
                service += b"\n".join([*lines[index + 1 :], pending]) + b"\n" + rest()
                os.write(2, f"error: {explain(service, process, count, heartbeat, start)}\n".encode())
                os.kill(parent, signal.SIGUSR2)  # the parent waits in its handler of abort(), see processes.py
                return
    os.write(2, pending)


def rest() -> bytes:
    """What the service still writes; the stack trace comes last, and nothing of it is needed."""
    text = b""
    while b"Check failure stack trace" not in text and (chunk := os.read(0, 65536)):
        text += chunk
    return text


if __name__ == "__main__":
    main()
