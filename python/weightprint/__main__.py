"""``python -m weightprint``."""

from weightprint.cli import main

if __name__ == "__main__":
    main()
