"""``python -m vkfuse``."""

from vkfuse.cli import main

if __name__ == "__main__":
    main()
