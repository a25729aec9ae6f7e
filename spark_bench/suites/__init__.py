"""What makes up a table, and running it."""
