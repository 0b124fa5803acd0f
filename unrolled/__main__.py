"""`python -m unrolled`."""

from unrolled.app.cli import main

if __name__ == "__main__":
    main()
