"""What is fixed when weights are loaded."""
