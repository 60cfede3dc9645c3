"""What only the isolated host does: fit, stage, start, smoke-test, switch."""
