"""What definitions of evaluation sets share: how regions are asked, the metrics of each question, names, sentences."""

from collections.abc import Mapping

REGION_KINDS = ("mask", "box", "point", "crop", "none")
REGION_METRICS = tuple(
    f"region/{kind}/{name}" for kind in ("mask", "box", "point") for name in ("macro", "within_image")
)
ABDOMEN = {
    "spleen": "spleen",
    "kidney_right": "right kidney",
    "kidney_left": "left kidney",
    "gallbladder": "gallbladder",
    "esophagus": "esophagus",
    "liver": "liver",
    "stomach": "stomach",
    "aorta": "aorta",
    "inferior_vena_cava": "inferior vena cava",
    "pancreas": "pancreas",
    "adrenal_gland_right": "right adrenal gland",
    "adrenal_gland_left": "left adrenal gland",
}  # what AMOS and BTCV both have


def image_metrics(source: str) -> tuple[str, ...]:
    """Metrics of a choice between labels of whole images, of the source that the build makes."""
    return tuple(f"image/{source}/{name}" for name in ("accuracy", "balanced_accuracy", "auroc"))


def asked(names: Mapping[str, str], *templates: str) -> dict[str, tuple[str, ...]]:
    """The sentences of labels: each template with what the label is called in them, for `{name}`."""
    return {label: tuple(template.format(name=name) for template in templates) for label, name in names.items()}


def classes(names: Mapping[str, str]) -> str:
    """The build's option that says what folders, columns or numbers are called."""
    return f"--option=classes={','.join(f'{key}={name}' for key, name in names.items())}"
