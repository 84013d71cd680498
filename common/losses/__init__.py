"""Objectives: one idea per file, each with an independent naive twin in its test."""
