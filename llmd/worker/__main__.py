"""Run a worker: ``python -m llmd.worker DESCRIPTOR``, started by `llmd.engine.supervisor`."""

import sys

from llmd.worker.main import main

sys.exit(main())
