"""The commands of ``python -m tools``: everything around the bundles that is not training itself."""
