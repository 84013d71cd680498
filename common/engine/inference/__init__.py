"""From a network to answers for whole scans without prompts, and to a file that runs elsewhere.

Read :mod:`.windows` first; :mod:`.kept_windows` keeps its features, :mod:`.routed` serves apps that have the image
alone, :mod:`.export` writes the network.
"""
