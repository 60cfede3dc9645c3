"""Evidence: bill of materials, provenance, the report."""
