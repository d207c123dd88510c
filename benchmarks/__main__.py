"""`python -m benchmarks [NAME ...] [--small] [--rounds N]`: run some benchmarks, or all of them.

Each starts what it needs, warms up, runs its rounds, prints a table, and closes with one line of JSON:
`{"name", "value", "unit", "limit", "ratio", "rounds", ...}`.
"""

import argparse
import asyncio
import importlib

from benchmarks.harness import Options, show

NAMES = (
    *("upload", "download", "plan", "translation", "translate_submit", "settle", "poll"),
    *("sinks", "redeliver", "end_to_end", "big", "growth", "many", "api"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=", ".join(NAMES))
    parser.add_argument("--small", action="store_true", help="small enough for CI: the figures mean little")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", choices=("metering", "logging", "feedback"), help="of sinks: run only one")
    parser.add_argument("--provider", choices=("openai", "anthropic"), default="openai", help="of end_to_end")
    parser.add_argument("--batches", type=int, help="of many: how many instead of 2,000")
    arguments = parser.parse_args()
    rounds = 1 if arguments.small else arguments.rounds
    options = Options(arguments.small, rounds, arguments.alone, arguments.provider, arguments.batches)
    for name in arguments.names or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        show(asyncio.run(module.run(options)))


if __name__ == "__main__":
    main()
