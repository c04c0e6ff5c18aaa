"""Commands about what a model is worth: its evaluation on the nodes."""
