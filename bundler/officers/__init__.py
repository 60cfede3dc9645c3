"""The officers' desk: keys, trust repository, packets, approvals."""
