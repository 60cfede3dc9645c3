"""Getting bytes: local folders and files, wheels."""
