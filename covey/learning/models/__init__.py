"""Models as flat vectors and files: which tensors travel, what stays in the process, how files are read and written."""
