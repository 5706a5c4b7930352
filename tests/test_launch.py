"""What starts jobs: launch/local.py with real processes, and the files for schedulers against what reads them."""

import json
import math
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jsonschema
import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from launch.local import GLOO_END, Gloo, Member, coordinator_address
from medp_clip_jax.processes import EXIT_PREEMPTED

ROOT = pathlib.Path(__file__).parents[1]
MANIFESTS = sorted((ROOT / "launch/gke").glob("*.yaml"))
JOBSETS = [path for path in MANIFESTS if "kind: JobSet" in path.read_text()]
JOBSET_SCHEMA = json.loads((ROOT / "tests/schemas/jobset_v1alpha2.json").read_text())
SCRIPTS = sorted(
    path
    for pattern in ("launch/**/*.sh", "launch/**/*.sbatch", "tests/**/*.sh", ".ci/run")
    for path in ROOT.glob(pattern)
)
KUBERNETES = "1.31"  # its schemas; podFailurePolicy and indexed jobs are older


def local(*flags: str, what: str, directory: pathlib.Path) -> subprocess.Popen:
    command = ["-m", "launch.local", "--module=tests.process_program", *flags, "--", what, str(directory)]
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen, *files: pathlib.Path) -> None:
    deadline = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


def test_local_runs_the_module_in_all_processes_and_tells_their_output_apart(tmp_path):
    process = local("--processes=3", "--devices_per_process=2", what="devices", directory=tmp_path)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    expected = [
        "[1] process 1 of 3: 2 of 6 devices",
        "[2] process 2 of 3: 2 of 6 devices",
        "process 0 of 3: 2 of 6 devices",
    ]
    assert sorted(output.splitlines()) == sorted(expected)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the port is free again at once")
def test_the_address_of_a_job_is_kept_from_others_and_open_to_its_coordinator():
    with coordinator_address() as address:
        place = (address.partition(":")[0], int(address.partition(":")[2]))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(place)
        with socket.socket() as coordinator:
            coordinator.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            coordinator.bind(place)
            coordinator.listen()
            socket.create_connection(place, timeout=5).close()


GLOO = ["[Gloo] Rank ", "2", " is connected to ", "2", " peer ranks. ", GLOO_END, "2", "\n"]


@given(st.lists(st.integers(0, 2), min_size=60, max_size=60))
def test_what_gloo_prints_is_hidden_however_two_threads_tear_it_and_nothing_else_is(turns):
    """The program itself prints whole lines, between any two writes of gloo's."""
    writers = [iter(GLOO), iter(GLOO), iter(["kept\n", "7 of 8\n", "Rank 3 is here\n"])]
    text = "".join(next(writers[turn], "") for turn in turns) + "".join(piece for rest in writers for piece in rest)
    gloo = Gloo()
    left = [rest for line in text.splitlines() if (rest := gloo.rest(line)) is not None]
    assert gloo.open == 0
    # Before what the program printed numbers of gloo's may stay: whose they are cannot be told.
    assert [line.lstrip("2") for line in left] == ["kept", "7 of 8", "Rank 3 is here"]


def test_empty_lines_and_numbers_of_the_program_stay_when_gloo_is_silent():
    gloo = Gloo()
    assert [gloo.rest(line) for line in ("", "7", "".join(GLOO[:-1]), "", "7")] == ["", "7", None, "", "7"]


def test_what_gloo_prints_is_hidden_when_it_comes_in_pieces(capfd):
    pieces = ["begin", *GLOO[:-1], "\n", "\n", *GLOO, *GLOO[1:], "next", *GLOO, "\n", "end"]
    program = f"import time\nfor piece in {pieces}:\n"
    program += "    print(piece, end='', flush=True)\n    time.sleep(0.01)"
    for count, prefix in ((1, ""), (2, "[1] ")):
        member = Member([sys.executable, "-c", program], count - 1, count, dict(os.environ))
        member.finish()
        assert capfd.readouterr().out == f"{prefix}begin\n{prefix}next\n{prefix}end" + ("\n" if prefix else "")


def test_local_passes_a_signal_on_to_all_and_does_not_start_again(tmp_path):
    process = local("--processes=2", "--restarts=3", what="steps", directory=tmp_path)
    wait_for(process, tmp_path / "at_0", tmp_path / "at_1")
    process.send_signal(signal.SIGINT)
    output, error = process.communicate(timeout=120)
    assert process.returncode == EXIT_PREEMPTED, error
    assert len({line.removeprefix("[1] ") for line in output.splitlines()}) == 1, output
    assert "starting again" not in error


def test_local_lets_a_process_finish_its_save_that_the_others_have_left(tmp_path):
    process = local("--processes=2", what="slow_save", directory=tmp_path)
    wait_for(process, tmp_path / "ready_0", tmp_path / "ready_1")
    process.send_signal(signal.SIGTERM)
    output, error = process.communicate(timeout=120)
    assert process.returncode == EXIT_PREEMPTED, error
    assert sorted(output.splitlines()) == ["[1] saved", "saved"]


def test_local_names_the_process_that_died_ends_the_others_and_starts_again(tmp_path):
    process = local("--processes=2", "--restarts=1", what="die_once", directory=tmp_path)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "process 1 of 2 was killed by SIGKILL; ending the others" in error
    assert "[1] last words" in output and "its last lines:\nlast words" in error
    assert "starting again (1 of at most 1 times)" in error


def test_local_does_not_repeat_an_error_of_the_users(tmp_path):
    process = local("--processes=2", "--restarts=3", what="input_error", directory=tmp_path)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "[1] error: corpus/x: not there; build it (process 1 of 2)" in error
    assert "starting again" not in error and "Traceback" not in error


def jobs(path: pathlib.Path) -> list[dict]:
    """The Job of each replicated job of a JobSet."""
    jobset = yaml.safe_load(path.read_text())
    return [
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": part["name"]}, **part["template"]}
        for part in jobset["spec"]["replicatedJobs"]
    ]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schemas_of_kubernetes_and_jobset(path):
    manifest = yaml.safe_load(path.read_text())
    if path in JOBSETS:
        jsonschema.validate(manifest, JOBSET_SCHEMA)
        for job in jobs(path):
            kubernetes_validate.validate(job, KUBERNETES, strict=True)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_schemas_refuse_what_a_cluster_would():
    manifest = yaml.safe_load(JOBSETS[0].read_text())
    manifest["spec"]["failurePolicy"]["maxRestart"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxRestart"):
        jsonschema.validate(manifest, JOBSET_SCHEMA)
    (job,) = jobs(JOBSETS[0])
    job["spec"]["template"]["spec"]["containers"][0]["image_name"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="image_name"):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.name)
def test_jobsets_restart_on_preemption_and_start_what_exists(path):
    spec = yaml.safe_load(path.read_text())["spec"]
    assert spec["failurePolicy"]["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    for job in jobs(path):
        rules, pod = job["spec"]["podFailurePolicy"]["rules"], job["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert rules[0]["onExitCodes"]["values"] == [EXIT_PREEMPTED]
        assert rules[0]["onExitCodes"]["containerName"] == container["name"]
        arguments = dict(argument.removeprefix("--").split("=") for argument in container["args"])
        assert (ROOT / arguments["config"]).exists()
        assert job["spec"]["parallelism"] == job["spec"]["completions"] and job["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("path", [path for path in JOBSETS if "tpu" in path.name], ids=lambda path: path.name)
def test_a_slice_has_a_pod_per_host_and_the_mesh_all_chips(path):
    (part,) = yaml.safe_load(path.read_text())["spec"]["replicatedJobs"]
    (job,) = jobs(path)
    pod = job["spec"]["template"]["spec"]
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    assert job["spec"]["parallelism"] * pod["containers"][0]["resources"]["limits"]["google.com/tpu"] == chips
    mesh = {name: int(size) for name, size in re.findall(r"--config\.mesh\.(\w+)=(\d+)", path.read_text())}
    assert mesh["fsdp"] == chips and mesh.get("data", 1) == part["replicas"]


def test_the_processes_of_the_gpu_jobset_find_each_other():
    jobset = yaml.safe_load((ROOT / "launch/gke/h100.yaml").read_text())
    (part,), (job,) = jobset["spec"]["replicatedJobs"], jobs(ROOT / "launch/gke/h100.yaml")
    container = job["spec"]["template"]["spec"]["containers"][0]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    name = jobset["metadata"]["name"]
    host, port = values["JAX_COORDINATOR_ADDRESS"].split(":")
    assert host == f"{name}-{part['name']}-0-0.{name}"
    assert int(port) in [entry["containerPort"] for entry in container["ports"]]
    assert int(values["JAX_NUM_PROCESSES"]) == job["spec"]["parallelism"] * part["replicas"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_clean(path):
    shellcheck = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run(
        [shellcheck, "--external-sources", str(path.relative_to(ROOT))], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


RECORDER = """#!/bin/bash
printf '%s\\0' "$@" >> "$RECORD"
printf '\\n' >> "$RECORD"
[[ $* == *describe* ]] && echo ACTIVE
exit 0
"""


def recorded(directory: pathlib.Path, program: str, *command: str) -> list[list[str]]:
    """Runs a command where `program` only notes its arguments; returns those of each call."""
    tools = directory / program
    tools.mkdir()
    (tools / program).write_text(RECORDER)
    (tools / program).chmod(0o755)
    record = tools / "record"
    environment = {"PATH": f"{tools}:{os.environ['PATH']}", "RECORD": str(record), "PROJECT": "p", "ZONE": "z"}
    subprocess.run(
        command, cwd=ROOT, env=os.environ | environment | {"SLICES": "2", "HOME": "/home/me", "USER": "me"}, check=True
    )
    return [call.split("\0") for call in record.read_text().split("\0\n")[:-1]]


def test_the_scripts_for_tpu_vms_hand_every_argument_on_unchanged(tmp_path):
    arguments = [
        "--config=configs/vitl.py",
        "--config.data.build=('--size=64', \"a b\")",
        "--config.workdir=/shared/my $runs",
    ]
    (tmp_path / "asked").mkdir()
    calls = recorded(tmp_path / "asked", "gcloud", "bash", "launch/tpu_vm/run.sh", *arguments)
    assert [call[3] for call in calls] == ["scp", "ssh", "ssh"]
    for call in calls:
        assert {"--project=p", "--zone=z", "--node=all", "--worker=all"} <= set(call)
    (command,) = (word.removeprefix("--command=") for word in calls[-1] if word.startswith("--command="))
    (tmp_path / "started").mkdir()
    started = recorded(tmp_path / "started", "sudo", "bash", "-c", command)[-1]
    python = "/home/me/medp-clip/.venv/bin/python"
    assert started[0] == "systemd-run" and started[started.index(python) :] == [
        *(python, "-m", "medp_clip_jax.train"),
        *arguments,
    ]


def test_several_slices_are_asked_for_as_one_request(tmp_path):
    first, *rest = recorded(tmp_path, "gcloud", "bash", "launch/tpu_vm/create.sh", "--spot")
    assert first[3:5] == ["create", "medp-clip"] and {"--node-count=2", "--node-prefix=medp-clip", "--spot"} <= set(
        first
    )
    assert [call[3] for call in rest] == ["describe"]


def test_the_batch_script_asks_to_be_stopped_in_time_and_started_again():
    text = (ROOT / "launch/slurm/train.sbatch").read_text()
    header = text[: text.index("\nset ")]
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", header, re.MULTILINE))
    assert {"requeue", "nodes", "ntasks-per-node", "time", "output"} <= set(options)
    assert options["open-mode"] == "append"
    name, seconds = options["signal"].split("@")  # without B: every process gets it, not the script
    assert name == "TERM" and int(seconds) >= 120
    assert f"EXIT_PREEMPTED={EXIT_PREEMPTED} " in text
    assert "#SBATCH" not in text[text.index("\nset ") :]  # SLURM ignores them after the first command
