"""Mode `rounds`: synchronous rounds."""
