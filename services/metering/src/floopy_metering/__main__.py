"""The console script `floopy-metering`."""

import asyncio

from floopy_common.settings import Settings
from floopy_metering import main as program


def main() -> None:
    asyncio.run(program.run(Settings()))


if __name__ == "__main__":
    main()
