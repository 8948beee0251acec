"""``python -m cosim``: the same as the ``cosim`` command."""

from cosim.cli.main import main

if __name__ == "__main__":
    try:
        main()
    finally:
        # Where Ctrl-C was raised in code made from a string (a namedtuple of a module that was just being imported), CPython would
        # end `-m` by SIGINT in spite of the exit code that it is told: it forgets that when it runs such code to its end.
        eval("0")  # noqa: S307
