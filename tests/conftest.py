"""Settings of all tests."""

import hypothesis

# A first example pays for imports and compilation, and cores are shared: time is measured elsewhere.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")
