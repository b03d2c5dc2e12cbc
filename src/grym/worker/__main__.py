"""The worker process: ``python -I -m grym.worker``, or this file by its path.

By its path it runs from a checkout that is not installed: the folder that holds
``grym`` is put on the path unless it is there already. The client starts it that
way, so that both ends are always of the same version.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    root = str(Path(__file__).resolve().parents[2])
    if root not in sys.path:
        sys.path.insert(0, root)

    from grym.worker.child import main

    sys.exit(main())
