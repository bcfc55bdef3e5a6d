"""``python -m stabletune``: the command where its script is not on the path."""

from stabletune.cli import main

if __name__ == "__main__":
    main()
