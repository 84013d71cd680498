"""What a run shows: progress, curves, pictures and costs.

While it trains: :mod:`.progress`, :mod:`.history`, :mod:`.overlays`, :mod:`.tracking`, :mod:`.run_costs`. When it is
evaluated: :mod:`.finished_cases`, :mod:`.first_cases`, :mod:`.case_pictures`, :mod:`.costs`. :mod:`.gate_pictures`
draws what gates choose.
"""
