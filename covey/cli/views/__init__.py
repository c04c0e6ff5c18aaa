"""What people see: tables, live views, and what longer commands do."""
