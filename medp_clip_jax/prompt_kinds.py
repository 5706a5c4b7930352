"""The kinds of prompt by name, and what evaluation compares them with: names only, so that a configuration is checked
without the code that simulates prompts.
"""

EXACT = ("mask", "box", "point")  # that evaluation asks by
TRAINED = (*EXACT, "box_point", "mask_box")  # that training simulates
SEGMENTED = "segmented"  # in evaluation: the mask that the model itself makes of the box, as a prompt
SHOWN = ("crop", "blackout", "blur", "red_circle")  # pictures of one region each, see `evaluators/region_views.py`
REFERENCES = ("none", *SHOWN)  # what evaluation compares with, no prompts: the whole image, and these
EVALUATED = (*EXACT, SEGMENTED, *REFERENCES)
