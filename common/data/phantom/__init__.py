"""The phantom collection: synthetic scans with known anatomy, so that every command runs at once.

Read :mod:`.collection` and :mod:`.tasks` first. A subject is :mod:`.shapes`, :mod:`.body` with :mod:`.abdomen` or
:mod:`.thorax`, then :mod:`.anatomy`; :mod:`.contrast` scans it and :mod:`.flat` makes pictures. :mod:`.layout` and
:mod:`.files` write; :mod:`.preview` shows.
"""
