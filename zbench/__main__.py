"""`python -m zbench`."""

from zbench.cli import entry

if __name__ == "__main__":
    entry()
