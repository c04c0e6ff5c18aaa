"""The page in a real browser: its server as a process, Chromium, and the pictures of the documentation."""
