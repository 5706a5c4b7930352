"""Settings of all tests."""

import hypothesis

# A first example pays for imports and compilation, and continuous integration shares its cores: time is measured elsewhere.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")
