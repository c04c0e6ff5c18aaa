"""The form of updates: how a node's vector becomes the parts that it sends, and how they are read and judged fit."""
