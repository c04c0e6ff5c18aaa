"""Model and update files beside the record, named by digest."""
