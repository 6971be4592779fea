"""`python -m sgft_edge`: the command `sgft-edge`."""

import sys

from sgft_edge.cli import main

if __name__ == "__main__":
    sys.exit(main())
