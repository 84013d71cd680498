"""Intensities: statistics of whole volumes, and the scales that networks were trained with.

Read :mod:`.volume` first; :mod:`.modality` is nnU-Net's choice by modality, :mod:`.unit` brings all to 0 .. 1.
"""
