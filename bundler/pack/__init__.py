"""Writing the bundle and the installer kit."""
