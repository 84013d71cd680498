"""Encoders and networks that the methods build on."""
