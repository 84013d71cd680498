"""What happens to a click: promptable networks on whole scans, a user's or a simulated one's.

Read :mod:`.promptable` (what a network must offer), :mod:`.session` (click, look, click again) with
:mod:`.encoded_volume` and :mod:`.object_windows`, then :mod:`.prompting` (the loop in training) and :mod:`.rehearse`
(a whole session by the computer). :mod:`.volume` and :mod:`.inferer` put it into evaluators and apps; :mod:`.page` with
:mod:`.charts` and :mod:`.pictures` shows it.
"""
