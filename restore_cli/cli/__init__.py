"""The commands. Only this room prints, exits or reads argv."""
