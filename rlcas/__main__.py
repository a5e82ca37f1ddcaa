"""`python -m rlcas`."""

import sys

from rlcas.cli import main

sys.exit(main())
