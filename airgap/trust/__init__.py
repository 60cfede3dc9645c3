"""Our rules around TUF (docs/bundle-format.md section 5): what the officers signed, and only that,
decides. Pure but for `state` (one file)."""
