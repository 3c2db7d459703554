"""``python -m pylocks`` is the ``pylocks`` command."""

import sys

from .cli import main

sys.exit(main())
