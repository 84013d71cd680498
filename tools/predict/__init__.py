"""``python -m tools predict``: a scan in, a label map on the scan's own grid out.

Read :mod:`.command`, then :mod:`.scans`, :mod:`.check` (scans beside the model's card),
:mod:`.prompt_options`, :mod:`.dicom_results`, :mod:`.passes` (what ran) and
:mod:`.delivery` (where results go).
"""
