"""The console script `floopy-feedback`."""

import asyncio

from floopy_common.settings import Settings
from floopy_feedback import main as program


def main() -> None:
    asyncio.run(program.run(Settings()))


if __name__ == "__main__":
    main()
