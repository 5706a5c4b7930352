"""Jobs of two real processes: they wait for each other, stop at one step, and none outlives another's death."""

import os
import signal
import threading
import time

import pytest

from medp_clip_jax import processes, stderr_filter
from medp_clip_jax.cluster import Cluster, find_cluster
from medp_clip_jax.errors import InputError
from tests.job_cases import Job

HEARTBEAT = {"MEDP_CLIP_HEARTBEAT_SECONDS": "10"}
# Each process waits for the other one, which is killed, in another place: (where, which one is killed).
DEATHS = [("collective1", 1), ("barrier1", 1), ("input1", 1), ("collective0", 0), ("input0", 0)]


def test_a_barrier_holds_back_until_the_main_process_has_written(tmp_path):
    results = Job("barrier", tmp_path / "job").finish()
    assert [code for code, _, _ in results.values()] == [0, 0]
    for number, (_, output, _) in results.items():
        assert f"seen True main {number == 0}" in output


def test_prompts_and_parameters_have_the_same_digests_in_any_number_of_processes(tmp_path):
    jobs = [Job("digests", tmp_path / f"job{count}", range(count), count) for count in (1, 2)]
    results = [result for job in jobs for result in job.finish().values()]
    assert [code for code, _, _ in results] == [0, 0, 0], results
    said = [line for _, output, _ in results for line in output.splitlines() if line.startswith("digests ")]
    assert len(said) == 3 and len(set(said)) == 1


@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_to_any_process_stops_all_at_the_same_step(tmp_path, number):
    job = Job("steps", tmp_path / "job")
    job.wait_for("at_0", "at_1")
    job.send(number, signal.SIGTERM)
    results = job.finish()
    assert [code for code, _, _ in results.values()] == [processes.EXIT_PREEMPTED] * 2
    stops = {line for _, output, _ in results.values() for line in output.splitlines() if "stopped at" in line}
    assert len(stops) == 1, results


@pytest.fixture(scope="module")
def deaths(tmp_path_factory):
    """Each job starts when the one before it is under way, and while that one waits, as all do most of the time."""
    directory = tmp_path_factory.mktemp("deaths")
    jobs = {"missing": Job("barrier", directory / "missing", numbers=(0,), MEDP_CLIP_START_SECONDS="3")}
    for where, number in DEATHS:
        jobs[where] = Job(where, directory / where, **HEARTBEAT)
        jobs[where].wait_for("ready_0", "ready_1")
        jobs[where].send(number, signal.SIGKILL)
    jobs["input_error"] = Job("input_error", directory / "input_error", **HEARTBEAT)
    return {where: job.finish() for where, job in jobs.items()}  # 60 seconds at most, or it raises


@pytest.mark.parametrize(("where", "killed"), DEATHS)
def test_a_killed_process_ends_the_other_one_with_one_line(deaths, where, killed):
    code, _, error = deaths[where][1 - killed]
    assert code == processes.EXIT_LOST, error
    (line,) = error.splitlines()
    assert line.startswith(f"error: process {killed} of 2 died or cannot be reached"), line
    assert line.endswith("start again: the run continues from its last checkpoint"), line


def test_an_error_of_the_users_in_one_process_ends_all(deaths):
    results = deaths["input_error"]
    assert results[1][0] == 2 and results[0][0] == processes.EXIT_LOST
    assert results[1][2] == "error: corpus/x: not there; build it (process 1 of 2)\n"
    assert results[0][2].startswith("error: process 1 of 2 died or cannot be reached")


def test_a_process_that_never_comes_is_waited_for_so_long_and_no_longer(deaths):
    results = deaths["missing"]
    assert results[0][0] == processes.EXIT_LOST
    (line,) = results[0][2].splitlines()
    assert "waited 3 s, but not all 2 processes arrived" in line


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_later_signal_kills_even_inside_a_loop_that_is_stuck(tmp_path, second):
    job = Job("stuck", tmp_path / "job", numbers=(0,), count=1)
    job.wait_for("ready_0")
    for _ in range(2):  # a scheduler's signal may reach a process in two ways
        job.send(0, signal.SIGTERM)
        time.sleep(0.5)
        assert job.processes[0].poll() is None
    job.send(0, second)
    deadline = time.monotonic() + 60
    while job.processes[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        job.send(0, second)
    code, _, error = job.finish()[0]
    assert code == 128 + second, error


def test_a_signal_outside_of_the_loop_ends_at_once(tmp_path):
    job = Job("setup", tmp_path / "job", numbers=(0,), count=1)
    job.wait_for("ready_0")
    job.send(0, signal.SIGTERM)
    assert job.finish()[0][0] == processes.EXIT_PREEMPTED


def test_one_process_is_told_by_a_flag_and_gets_its_handlers_back():
    before = [signal.getsignal(number) for number in processes.STOP_SIGNALS]
    with processes.Preemption() as watch:
        assert not watch.reached(1)
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 10
        while not watch.reached(2):
            assert time.monotonic() < deadline
    assert [signal.getsignal(number) for number in processes.STOP_SIGNALS] == before
    processes.barrier("alone")
    assert processes.is_main()
    with processes.Preemption() as watch:  # an earlier signal does not stop a later loop
        assert not watch.reached(1)


def test_a_watch_outside_of_the_main_thread_sees_no_signals_and_does_no_harm():
    seen = []

    def loop():
        with processes.Preemption() as watch:
            seen.append(watch.reached(1))

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert seen == [False]


SLURM = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "3", "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}
LOCAL = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, None),  # in sbatch's script, not in a step
        (LOCAL, Cluster("a:1", 2, 1, [])),
        (LOCAL | {"JAX_LOCAL_DEVICE_IDS": "2,3"}, Cluster("a:1", 2, 1, None)),
        (LOCAL | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        (LOCAL | SLURM, Cluster("a:1", 2, 1, [])),
        # Eight tasks on a node that see all its GPUs take one each; a task that sees only its own takes what it sees.
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, Cluster(None, 16, 3, None)),
        (SLURM | {"CUDA_VISIBLE_DEVICES": "0"}, Cluster(None, 16, 3, [])),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x16)", "CUDA_VISIBLE_DEVICES": "0,1"}, Cluster(None, 16, 3, [])),
    ],
)
def test_the_environment_says_which_job_this_is(environment, cluster):
    assert find_cluster({"JAX_PLATFORMS": "cpu"} | environment) == cluster


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"JAX_PROCESS_ID": ""}, "but not JAX_PROCESS_ID"),
        ({"JAX_PROCESS_ID": "2"}, "from 0 to JAX_NUM_PROCESSES - 1"),
        ({"JAX_NUM_PROCESSES": "two"}, "from 0 to JAX_NUM_PROCESSES - 1"),
        ({"JAX_COORDINATOR_ADDRESS": "host"}, "host:port"),
    ],
)
def test_half_a_job_in_the_environment_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        find_cluster(LOCAL | change)


def test_several_dead_processes_are_all_named_and_unknown_reasons_are_quoted():
    text = b"x] The following tasks are unhealthy (stopped sending heartbeats):\n3\n1\nThe tasks have crashed."
    assert stderr_filter.explain(text, 0, 4, 30, 300).startswith("processes 1, 3 of 4 died or cannot be reached")
    assert stderr_filter.explain(text, -1, 0, 30, 300).startswith("processes 1, 3 died or cannot be reached")
    text = b"Terminating process because ... absl::Status: INTERNAL: disk full\n"
    assert "process 2 of 4 lost the others (INTERNAL: disk full)" in stderr_filter.explain(text, 2, 4, 30, 300)
