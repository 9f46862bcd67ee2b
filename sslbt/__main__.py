"""`python -m sslbt`, as MLproject calls it."""

import sys

from sslbt.cli import main

sys.exit(main())
