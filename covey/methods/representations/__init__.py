"""Methods whose concern is the representation: weights of samples, scales of features, neighbours among embeddings."""
