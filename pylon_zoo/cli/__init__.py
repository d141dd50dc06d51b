"""The command ``pylon-zoo``: parse, call the library, print."""
