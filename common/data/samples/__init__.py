"""Training samples: which case is drawn when, and with what randomness, whatever process reads it.

:mod:`.draws` numbers the draws and seeds each by its number, :mod:`.sampler` says which case a draw takes,
:mod:`.loader` reads them in any number of processes.
"""
