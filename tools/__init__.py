"""The commands of ``python -m tools``: everything around the bundles that is not training itself.

Begin at :mod:`.__main__`, the one door. Commands of one file: :mod:`.doctor`, :mod:`.phantom`, :mod:`.data`,
:mod:`.train`, :mod:`.evaluate`, :mod:`.weights`; the others are packages of their name. What they share:
:mod:`.command_line` (words typed), :mod:`.terminal` (words printed), :mod:`.question` (words asked),
:mod:`.bundle_files` and :mod:`.bundle_describe` (bundles, read as data), :mod:`.workflow` (one run in this process),
:mod:`.run_files` (what runs left).
"""
