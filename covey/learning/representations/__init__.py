"""What is computed on a model's features: pure losses, sample weights, and gathering over the processes of a node."""
