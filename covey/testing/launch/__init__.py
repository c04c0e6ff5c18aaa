"""Starting daemons and commands as child processes, quickly: as copies of one process that has imported everything."""
