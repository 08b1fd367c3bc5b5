"""One scenario, to be run as the first process of namespaces of its own."""

from __future__ import annotations

import sys

from tests.deploy.rehearsal.scenarios import SCENARIOS

if __name__ == "__main__":
    SCENARIOS[sys.argv[1]]()
    print("ok")
