"""The user's code from outside: its digest, and where in it an error was made."""
