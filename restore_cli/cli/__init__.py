"""The commands: the only code that prints, exits or reads argv."""
