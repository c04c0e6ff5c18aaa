"""What `import covey` gives: a federation and its runs as objects, for scripts and notebooks (docs/client.md)."""
