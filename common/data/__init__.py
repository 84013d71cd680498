"""Datasets, collections, reading, checking and transforming volumes."""
