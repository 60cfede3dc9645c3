"""systemd as the keeper of our daemons: units as text, and the manager that takes them."""
