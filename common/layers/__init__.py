"""Neural layers that the methods share."""
