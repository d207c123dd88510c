"""Starts the API from the environment's settings."""

import asyncio

from floopy_api import main as service
from floopy_common.settings import Settings


def main() -> None:
    asyncio.run(service.run(Settings()))


if __name__ == "__main__":
    main()
