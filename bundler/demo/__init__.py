"""The whole journey on one machine."""
