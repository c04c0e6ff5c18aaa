"""The daemon's side of its worker: start it, ask it, replace it when it dies. Free of torch."""
