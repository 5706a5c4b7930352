"""What a user may say about volumes: which slices, in which windows, under which names."""

import dataclasses
import pathlib
from collections.abc import Mapping

from data import privacy
from data.sources.options import choice, number
from medp_clip_jax.errors import InputError
from medp_clip_jax.intensity import WINDOWS
from medp_clip_jax.volumes import PLANES

COMMON = {
    "name": "name of the source in the corpus",
    "planes": "axial, coronal, sagittal, several with commas, or auto (default): across the thickest slices, axial if "
    "voxels are cubes",
    "step_mm": "distance between slices in mm, 10 by default; 0 takes every slice",
    "largest": "yes (default): also the slice in which each label is largest; or no",
    "empty": "no (default): slices without a region are left out; or yes",
    "windows": f"CT windows, several with commas: {', '.join(WINDOWS)}; by default one by anatomy",
    "modality": "modality of all images, in place of what the data set says",
    "anatomy": "body part of all images, likewise",
    "licence": "licence of the data, for the corpus's provenance",
    "ids": "hash (default): salted hashes in place of identifiers and file names; or keep, for published data",
    "salt_file": f"secret file behind the hashes; default: {privacy.ENVIRONMENT}, else ~/.config/medp_clip_jax/salt",
    "key_file": "file to write the table of hashes and identifiers to: it identifies patients, keep it apart",
    "burned_in": "text in the pixels: off (default for NIfTI), flag (a warning each, default for DICOM) or skip",
    "unoriented": "skip (default) volumes whose file states no orientation, or accept: their left may be right",
}

# The first window whose words stand in the body part; CT without any gets the soft-tissue window.
WINDOW_OF = {
    "brain": ("brain", "head", "skull"),
    "lung": ("lung", "chest", "thorax"),
    "bone": ("bone", "spine", "vertebra", "knee", "hip", "shoulder", "extremity"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of `COMMON`, checked; see there. No plane or window means that the data decide."""

    name: str = ""
    planes: tuple[str, ...] = ()
    step_mm: float = 10.0
    largest: bool = True
    empty: bool = False
    windows: tuple[str, ...] = ()
    modality: str = ""
    anatomy: str = ""
    licence: str = ""
    salt: bytes | None = dataclasses.field(default=None, repr=False)
    key_file: pathlib.Path | None = dataclasses.field(default=None, repr=False)
    burned_in: str = "off"
    unoriented: bool = False

    def windows_for(self, modality: str, anatomy: str) -> tuple[str, ...]:
        """Names of the windows that images of this kind are shown in; none outside CT."""
        if modality.lower().split(" ")[0] != "ct":
            return ()
        words = set(anatomy.lower().replace("_", " ").split())
        fitting = [window for window, names in WINDOW_OF.items() if words & set(names)]
        return self.windows or tuple(fitting[:1]) or ("soft_tissue",)

    def rule(self) -> dict[str, str]:
        """The choice of slices in words, for the provenance."""
        step = f"the middle one and others every {self.step_mm:g} mm" if self.step_mm else "every slice"
        more = ", and the slice in which each label is largest" if self.largest else ""
        return {
            "planes": ", ".join(self.planes) or "across the thickest slices, axial if voxels are cubes",
            "slices": step + more + ("" if self.empty else "; without a region: left out"),
            "windows": ", ".join(self.windows) or "by anatomy",
            "orientation": "radiological: the patient's right on the left of the picture, head and front up",
            "identifiers": "as published" if self.salt is None else "salted hashes",
        }


def read_settings(options: Mapping[str, str], burned_in: str = "off") -> Settings:
    """Checks options; InputError naming the one that cannot be meant."""
    planes, windows = _listed(options, "planes", PLANES), _listed(options, "windows", WINDOWS)
    hashed = choice(options, "ids", ("hash", "keep")) == "hash"
    key_file = options.get("key_file", "")
    return Settings(
        name=options.get("name", ""),
        planes=planes,
        step_mm=number(options, "step_mm", 10.0),
        largest=choice(options, "largest", ("yes", "no")) == "yes",
        empty=choice(options, "empty", ("no", "yes")) == "yes",
        windows=windows,
        modality=options.get("modality", ""),
        anatomy=options.get("anatomy", ""),
        licence=options.get("licence", ""),
        salt=privacy.read_salt(options.get("salt_file", "")) if hashed else None,
        key_file=pathlib.Path(key_file) if key_file else None,
        burned_in=choice(options, "burned_in", tuple(dict.fromkeys((burned_in, "off", "flag", "skip")))),
        unoriented=choice(options, "unoriented", ("skip", "accept")) == "accept",
    )


def _listed(options: Mapping[str, str], key: str, known) -> tuple[str, ...]:
    names = tuple(name.strip() for name in options.get(key, "auto").split(",") if name.strip())
    if names in ((), ("auto",)):
        return ()
    for name in names:
        if name not in known:
            raise InputError(
                f"--option={key}={options[key]}: no {name!r}: expected auto, or some of {', '.join(known)}"
            )
    return tuple(dict.fromkeys(names))
