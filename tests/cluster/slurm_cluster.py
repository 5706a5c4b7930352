"""A real SLURM cluster on this machine, in a directory of its own: munge, slurmctld and two slurmd on their own ports.

`with slurm_cluster(directory) as environment:` gives the environment in which sbatch, squeue and scontrol talk to it.
Needs Debian's packages slurm-wlm and munge, no root, and no file outside the directory.
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# JAX takes the first node's name as the address of process 0, so it has to resolve: it is this machine's own name. The
# second one is looked up by nobody, because SLURM has the address beside it. It has to come second in SLURM's order.
HOST = socket.gethostname().split(".")[0]
NODES = (HOST, f"{HOST}-twin")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun")

CONFIGURATION = """
ClusterName=onemachine
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
# No control groups, no accounting: a container or a laptop has neither.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/linear
# Nodes may claim more than the machine has.
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=90
MailProg=/bin/true
JobRequeue=0
NodeName={first} NodeAddr=127.0.0.1 Port={first_port} CPUs=1
NodeName={second} NodeAddr=127.0.0.1 Port={second_port} CPUs=1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def slurm_cluster(directory: Path) -> Iterator[dict[str, str]]:
    """Starts the cluster, waits until both nodes are idle, and takes all of it down at the end.

    Raises:
      RuntimeError: a package is missing, or a daemon did not come up; with the end of its log.
    """
    directory.mkdir(parents=True)
    environment = os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    missing = [program for program in PROGRAMS if not shutil.which(program, path=environment["PATH"])]
    if missing:
        raise RuntimeError(f"not installed: {', '.join(missing)}; apt-get install slurm-wlm munge")
    configuration = directory / "slurm.conf"
    environment["SLURM_CONF"] = str(configuration)
    ports = free_ports(3)
    configuration.write_text(
        CONFIGURATION.format(
            host=HOST,
            user=getpass.getuser(),
            directory=directory,
            first=NODES[0],
            second=NODES[1],
            controller_port=ports[0],
            first_port=ports[1],
            second_port=ports[2],
        )
    )
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (directory / name).mkdir()
    with contextlib.ExitStack() as daemons:
        for name, command in commands(directory):
            daemons.enter_context(daemon(name, command, directory, environment))
        wait_until_idle(directory, environment)
        yield environment


def commands(directory: Path) -> list[tuple[str, list[str]]]:
    """The daemons in the order of their start, all in the foreground."""
    key = directory / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    own = {name: str(directory / f"munge.{name}") for name in ("socket", "pid", "log", "seed")}
    munge = [
        *("munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}", f"--socket={own['socket']}"),
        *(f"--pid-file={own['pid']}", f"--log-file={own['log']}", f"--seed-file={own['seed']}"),
    ]
    nodes = [(f"slurmd-{node}", ["slurmd", "-D", "-N", node]) for node in NODES]
    return [("munged", munge), ("slurmctld", ["slurmctld", "-D", "-c"]), *nodes]


@contextlib.contextmanager
def daemon(name: str, command: list[str], directory: Path, environment: dict[str, str]) -> Iterator[None]:
    """Runs one daemon with its output in `name`.out; ends it at the end."""
    with open(directory / f"{name}.out", "w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        time.sleep(1)  # munged has to listen before the others start
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}:\n{tails(directory)}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_idle(directory: Path, environment: dict[str, str], seconds: int = 60) -> None:
    """Waits until both nodes take jobs."""
    states = ""
    for _ in range(seconds):
        answer = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%T"], env=environment, capture_output=True, text=True
        )
        states = (answer.stdout + answer.stderr).strip()
        if states.split() == ["idle", "idle"]:
            return
        time.sleep(1)
    raise RuntimeError(f"the nodes are not idle after {seconds} s but: {states}\n{tails(directory)}")


def tails(directory: Path) -> str:
    """The last lines of all that the daemons have written."""
    files = sorted([*directory.glob("*.out"), *directory.glob("*.log")])
    return "\n".join(f"-- {file.name}\n" + "\n".join(file.read_text().splitlines()[-15:]) for file in files)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on now."""
    with contextlib.ExitStack() as sockets:
        found = []
        for _ in range(count):
            free = sockets.enter_context(socket.socket())
            free.bind(("127.0.0.1", 0))
            found.append(free.getsockname()[1])
        return found
