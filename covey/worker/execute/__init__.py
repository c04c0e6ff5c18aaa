"""What the worker does with each job."""
