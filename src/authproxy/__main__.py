"""`python -m authproxy`: the front door without the console script, as containers start it."""

import sys

from authproxy.cli import main

if __name__ == "__main__":
    sys.exit(main())
