"""Methods: what travels in a run beside the model, what changes in local training, what is kept. A file a method."""
