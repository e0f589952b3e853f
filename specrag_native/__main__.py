"""``python -m specrag_native`` is the ``specrag`` command."""

import sys

from specrag_native.cli.main import main

sys.exit(main())
