"""``python -m planner`` is the ``ditplan`` command."""

from planner.cli import main

if __name__ == "__main__":
    main()
