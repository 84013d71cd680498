"""A run from its first line to its last checkpoint: it can be killed at any moment and goes on as if undisturbed.

In order: :mod:`.start` (with :mod:`.overrides`, :mod:`.lock`, :mod:`.seeding`, :mod:`.distributed`,
:mod:`.interrupt`), :mod:`.checkpoint` (with :mod:`.plain`), :mod:`.best`, :mod:`.early_stop`. :mod:`.length` says how
many steps there are; :mod:`.rate` and :mod:`.epoch` go by them. :mod:`.frozen` watches a training; :mod:`.settings`
carries to inference what it must know, :mod:`.settings_form` says in which form.
"""
