"""DICOM: series in, segmentations out, with a refusal that names the file for everything in between.

Reading goes :mod:`.objects` and :mod:`.image_type` (what a file is), :mod:`.slices` (what files hold), :mod:`.contents`
(what a folder holds), :mod:`.pixels`, :mod:`.grid`, :mod:`.series` (one complete series). :mod:`.seg` writes
segmentations with the terms of :mod:`.codes`; :mod:`.seg_masks` reads them.

highdicom's ``get_volume_from_series`` is not used for reading: it saves 25 lines of 970, but says "not a
regularly-spaced volume" where we name the missing, tilted, shifted or damaged slice. It also refuses series whose
SOPClassUID an anonymiser removed, and knows nothing of stacks, gaps to fill and slices to leave out.
"""
