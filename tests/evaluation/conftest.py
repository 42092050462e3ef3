"""Settings of the property tests in this folder."""

from hypothesis import settings

settings.register_profile("evaluation", deadline=None, max_examples=40)
settings.load_profile("evaluation")
