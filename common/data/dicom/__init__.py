"""DICOM: series in, segmentations out, with a refusal that names the file for everything in between.

Reading goes :mod:`.slices` (what files hold), :mod:`.pixels`, :mod:`.grid`, :mod:`.series` (one complete series).
:mod:`.seg` writes segmentations with the terms of :mod:`.codes`; :mod:`.seg_masks` reads them.
"""
