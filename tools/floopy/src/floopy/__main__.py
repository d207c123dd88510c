"""Entry point of the console script `floopy`."""

from floopy.cli import make_app


def main() -> None:
    make_app()()


if __name__ == "__main__":
    main()
