"""What is installed, as a page: `docs/methods.md`."""
