"""Who is asked: gates, and the experts that lie right behind them.

Read :mod:`.routing` first; :mod:`.mlp_mixture` puts a gate before :mod:`.mlp_experts`, :mod:`.prompt_gate` reads
prompts and an image, :mod:`.class_heads` obeys the data set.
"""
