"""`python -m covey` is the command `covey`."""

from covey.cli.main import main

main()
