"""What several benchmarks measure with: federations under watch, processes, large records, and what is aimed at."""
