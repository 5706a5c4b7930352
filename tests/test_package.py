"""The package as it is installed: names, declared dependencies, licence."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest

import medp_clip_jax as medp

pytestmark = pytest.mark.short

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {"absl": "absl-py", "orbax": "orbax-checkpoint", "PIL": "pillow", "sklearn": "scikit-learn"}
DISTRIBUTIONS |= {"google": "protobuf", "cv2": "opencv-python-headless"}
OWN = {"medp_clip_jax", "data", "configs"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imports(file: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


def test_every_public_name_resolves():
    for name in medp.__all__:
        assert getattr(medp, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        medp.no_such_name  # noqa: B018


def test_importing_the_package_does_not_load_jax():
    # The offline tools and every input worker import the package; JAX would cost each of them seconds.
    code = "import sys, medp_clip_jax; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_loading_a_model_needs_nothing_that_decodes_images():
    # The compiler of their loops takes 75 MB, and benchmarks/load.py holds the peak of loading to 1.2 files.
    code = "import sys, medp_clip_jax as medp; medp.load; sys.exit(str({'numba', 'scipy', 'grain'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert found.stderr.strip() == "set()"


def test_version_is_that_of_the_installed_distribution():
    assert medp.__version__ == importlib.metadata.version("medp-clip-jax")


def test_every_import_is_a_declared_dependency():
    requirements = importlib.metadata.requires("medp-clip-jax")
    declared = {_normal(re.match(r"[\w.-]+", line).group()) for line in requirements if "extra ==" not in line}
    extras = ("medical", "corpora", "curate", "beam")  # each named in the error of what needs it
    optional = {
        _normal(re.match(r"[\w.-]+", line).group())
        for line in requirements
        if any(f'extra == "{extra}"' in line for extra in extras)
    }
    package = pathlib.Path(medp.__file__).parent
    for file in [*package.rglob("*.py"), *(package.parent / "data").rglob("*.py")]:
        third_party = {
            _normal(DISTRIBUTIONS.get(name, name)) for name in _imports(file) - OWN - sys.stdlib_module_names
        }
        assert third_party <= declared | optional, f"{file} imports a package that setup.py does not declare"


def test_the_package_never_imports_the_offline_half():
    for file in pathlib.Path(medp.__file__).parent.rglob("*.py"):
        assert "data" not in _imports(file), f"{file}: data/ imports medp_clip_jax, never the other way"


def test_every_dependency_has_a_floor_and_no_upper_pin():
    for line in importlib.metadata.requires("medp-clip-jax"):
        requirement = line.partition(";")[0]
        assert ">=" in requirement, f"{line}: give it a floor"
        assert not re.search(r"<|==|~=", requirement), f"{line}: no upper pins"


def test_shipped_data_files_are_found():
    from data.ontology import load

    assert len(load()) > 100
