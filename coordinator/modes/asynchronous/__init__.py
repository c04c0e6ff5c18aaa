"""Mode `async`: each node has an assignment of its own, and a policy decides on each update as it comes."""
