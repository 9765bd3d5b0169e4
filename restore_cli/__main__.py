"""`python -m restore_cli`."""

from restore_cli.cli.main import main

main()
