"""2-D slices of volumes, and how many of them a training may see.

Read :mod:`.views` first; :mod:`.unlabelled` lists images without labels, :mod:`.few_shot` takes a part of a list.
"""
