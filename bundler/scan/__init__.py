"""The gate: what is looked at before anybody is asked to approve."""
