"""Pure functions from config, model facts and request to a program."""
