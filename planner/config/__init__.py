"""YAML or JSON text to a typed acceleration config in which every value knows its place."""
