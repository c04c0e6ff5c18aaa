"""From an assignment to a delivered update: base model, training, journal, offer."""
