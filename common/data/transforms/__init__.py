"""MONAI dictionary transforms that know tasks, label spaces and grids; all picklable.

In the order of a chain: :mod:`.loading`, :mod:`.transforms`, :mod:`.padding`, :mod:`.positions`, :mod:`.crops`; when a
trained network meets a case, :mod:`.compared` holds it against the network's card, :mod:`.route` chooses its expert and
head and :mod:`.restore` brings the answer back to the patient.
"""
