"""The executor: ranks that hold one placement and denoise exactly as a plan says."""
