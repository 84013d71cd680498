"""``python -m tools amalgamate``: experts and scans in, one student that answers as they do in one pass out.

Read :mod:`.command`, then :mod:`.prepare` with :mod:`.given` and :mod:`.described` (what a user gives), :mod:`.gather`
(the collection that it becomes) and :mod:`.lessons` (what will be taught); :mod:`.work` keeps what was chosen,
:mod:`.form` says what the folder's files hold, :mod:`.plan` has the steps. Those that are done here open the
configuration of the :mod:`.training`: :mod:`.forecast`, :mod:`.answers` with :mod:`.contradictions`, and :mod:`.scores`
with :mod:`.passes`, :mod:`.measured`, :mod:`.kept` and :mod:`.pictures`. :mod:`.verdict` says which passes can go,
:mod:`.beside` leaves those beside the student that a user keeps, and :mod:`.page` with :mod:`.lesson_map` shows it.
"""
