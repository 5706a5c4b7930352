"""A small program for tests/test_processes.py, run as one process of a job: `process_program.py WHAT DIRECTORY`."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from medp_clip_jax import processes
from medp_clip_jax.errors import InputError, run_cli


def steps(directory: Path, pause: float, last: int = 10_000) -> None:
    """Steps with a collective in each, at a pace of its own per process, until told to stop."""
    with processes.Preemption() as watch:
        for step in range(1, last + 1):
            multihost_utils.process_allgather(np.ones(2))
            time.sleep(pause)
            (directory / f"at_{jax.process_index()}").write_text(str(step))
            if watch.reached(step):
                print(f"stopped at {step}", flush=True)
                sys.exit(processes.EXIT_PREEMPTED)
    processes.exit_if_asked()


def wait(directory: Path, where: str) -> None:
    """Waits for process 1, which will not come, in the given place."""
    multihost_utils.process_allgather(np.ones(2))
    (directory / f"ready_{jax.process_index()}").touch()
    if jax.process_index() == int(where[-1]):
        time.sleep(600)
    if where.startswith("collective"):
        multihost_utils.process_allgather(np.ones(2))
    elif where.startswith("barrier"):
        processes.barrier("never")
    else:
        while True:  # the input pipeline
            time.sleep(0.1)


def digests() -> None:
    """Says what prompts and parameters are digested as, when each process has every second region and column."""
    # Imported here: the other jobs should not wait for the model's libraries.
    from medp_clip_jax import results
    from medp_clip_jax.evaluators import prompt_record
    from medp_clip_jax.prompts import RegionPrompts

    rng, number = np.random.default_rng(0), jax.process_index()
    prompts = RegionPrompts.none(1, 3000)
    prompts = dataclasses.replace(prompts, boxes=rng.random((1, 3000, 4)).astype(np.float32), box_valid=prompts.valid)
    kept: prompt_record.Kept = {}
    places = np.arange(3000)[None]
    prompt_record.keep(kept, prompts, np.where(places % jax.process_count() == number, places, -1), 3000)
    mesh = jax.make_mesh((jax.device_count(),), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "fsdp"))
    whole = rng.random((3, 4)).astype(np.float32)
    params = {"w": jax.make_array_from_callback(whole.shape, split, lambda index: whole[index])}
    prompt = prompt_record.combined(prompt_record.per_region(prompt_record.joined(kept)))
    print("digests", prompt, results.origin(None, params)["parameters"], flush=True)


def main(argv: list[str]) -> None:
    """Runs what is asked for as `train.py` does."""
    what, directory = argv[1], Path(argv[2])
    processes.start()
    with processes.guard():
        if what == "barrier":
            if processes.is_main():
                time.sleep(1)
                (directory / "written").touch()
            processes.barrier("written")
            print("seen", (directory / "written").exists(), "main", processes.is_main(), flush=True)
        elif what == "steps":
            steps(directory, 0.02 + 0.03 * jax.process_index())
        elif what == "slow_save":
            with processes.Preemption():
                (directory / f"ready_{jax.process_index()}").touch()
                while True:
                    time.sleep(0.1)
                    if processes._LISTENER.asked:
                        time.sleep(processes.SAME_SECONDS + (1 if jax.process_index() else 4))
                        print("saved", flush=True)
                        os._exit(processes.EXIT_PREEMPTED)
        elif what == "stuck":
            with processes.Preemption():
                (directory / f"ready_{jax.process_index()}").touch()
                signal.pause() if len(argv) > 3 else time.sleep(600)
        elif what == "setup":
            (directory / f"ready_{jax.process_index()}").touch()
            time.sleep(600)
        elif what == "devices":
            places = f"process {jax.process_index()} of {jax.process_count()}"
            print(f"{places}: {jax.local_device_count()} of {jax.device_count()} devices", flush=True)
        elif what == "digests":
            digests()
        elif what == "die_once":
            if jax.process_index() == 1 and not (directory / "died").exists():
                (directory / "died").touch()
                print("last words", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            processes.barrier("end")
        elif what == "input_error":
            if jax.process_index() == 1:
                raise InputError("corpus/x: not there; build it")
            wait(directory, "collective9")
        else:
            wait(directory, what)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    run_cli(main)
