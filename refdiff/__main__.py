"""`python -m refdiff` is `refdiff`."""

import sys

from .cli import main

sys.exit(main())
