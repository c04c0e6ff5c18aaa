"""What daemon and worker say to each other: frozen jobs and results, and their JSON. Free of torch."""
