"""Container images from registries: references, credentials, tokens, manifests, signatures."""
