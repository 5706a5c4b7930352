"""Steps of curation: pure functions that find what is wrong with a region, an image, or several images."""

import dataclasses

ACTIONS = ("drop", "flag", "keep")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a rule found: in a region (by its number in the record) or in the image (region -1)."""

    rule: str
    region: int = -1
    detail: str = ""
