"""What people see, a file a view: tables, live views, and what longer commands do."""
