"""The way in: HTTP relays, the door with keys and TLS, and LiteLLM behind it."""
