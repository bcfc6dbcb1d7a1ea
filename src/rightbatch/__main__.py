"""The command's first lines: ``python -m rightbatch`` and the script ``rightbatch``."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C is answered even while it is still being loaded."""
    try:
        from rightbatch.cli import main as run

        run()
    except KeyboardInterrupt:
        print("rightbatch: interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
