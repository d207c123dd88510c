"""The console script `floopy-reconciler`."""

import asyncio

from floopy_common.settings import Settings
from floopy_reconciler.main import run


def main() -> None:
    asyncio.run(run(Settings()))


if __name__ == "__main__":
    main()
