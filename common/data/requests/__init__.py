"""What an annotation server asks, is answered, and keeps.

Read :mod:`.prompts` and :mod:`.boxes` (a request), :mod:`.answer` (its answer), :mod:`.submitted` (label maps that a
user corrected).

Also here: :mod:`.card` and :mod:`.study`, what a server compares of a scan with the card.
"""
