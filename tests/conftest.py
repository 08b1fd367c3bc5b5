"""What holds for every test."""

from hypothesis import settings

# The same verdict on the same code, everywhere; `make fuzz` looks further.
settings.register_profile("ditplan", derandomize=True)
settings.load_profile("ditplan")
