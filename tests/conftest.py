"""Settings of all tests."""

import atexit
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile

import hypothesis

# A first example pays for imports and compilation, and cores are shared: time is measured elsewhere.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
# Later jaxlibs have no such flag and refuse to start, and so does libtpu, which reads the same variable.
if importlib.metadata.version("jaxlib").startswith("0.10.") and importlib.util.find_spec("libtpu") is None:
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")

# Compiling, not computing, takes the tests' time: no optimisation, and what one process compiles serves the next.
# Set before jax is imported; workers and the programs under test inherit it.
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
