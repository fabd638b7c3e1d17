"""The `jetmask` command; `python3 -m jetmask VERB` is the same."""

import sys


def main() -> int:
    """Run one verb and return the exit code; 2 with one message where a package of another project is in the way."""
    from jetmask import own

    try:
        own.check()
    except own.NotOurs as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from pipeline.cli import main as verbs

    return verbs()


if __name__ == "__main__":
    sys.exit(main())
