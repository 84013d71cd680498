"""Prompts in training and evaluation: clicks as a person sets them, boxes, and the objects they are meant for.

Read :mod:`.clicks` first (one click), then :mod:`.click_protocol` (a session of them). :mod:`.objects`, :mod:`.places`
and :mod:`.crops` cut what is clicked at; :mod:`.targets` and :mod:`.picture_boxes` put boxes where an inferer finds
them.
"""
