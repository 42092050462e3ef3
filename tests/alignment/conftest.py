"""Settings of the property tests in this folder."""

from hypothesis import settings

settings.register_profile("alignment", deadline=None)
settings.load_profile("alignment")
