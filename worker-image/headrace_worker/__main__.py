"""`python -m headrace_worker` is the same as `headrace_worker`."""

from __future__ import annotations

import sys

from headrace_worker.main import main

sys.exit(main())
