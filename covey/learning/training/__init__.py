"""The built-in local training: the loop, gradients example by example, loading ahead, seeds."""
