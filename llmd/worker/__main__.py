"""Run a worker as ``python -m llmd.worker DESCRIPTOR``. `llmd.engine.supervisor` starts it."""

import sys

from llmd.worker.main import main

sys.exit(main())
