"""Engines: what turns an approved manifest into a running server."""
