"""``python -m tools bundle``: look at a bundle before you run it, pack it, publish it.

Read :mod:`.command` first. Checking is :mod:`.checks` with :mod:`.static` and :mod:`.docs`; packing is :mod:`.pack`
with :mod:`.closure`, :mod:`.vendor` (:mod:`.names` finds what :mod:`.rename` renames), :mod:`.libraries` and
:mod:`.zip`; :mod:`.push` publishes.

Also here: :mod:`.lookup`.
"""
