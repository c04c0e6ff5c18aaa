"""Methods for nodes whose labels differ, as FedGen's authors compare them: `python -m benchmarks.heterogeneity`."""
