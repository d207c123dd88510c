"""The console script `floopy-submitter`."""

import asyncio

from floopy_common.settings import Settings
from floopy_submitter import main as program


def main() -> None:
    asyncio.run(program.run(Settings()))


if __name__ == "__main__":
    main()
