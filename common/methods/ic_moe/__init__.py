"""IC-MoE: a basic, a semantic and an adaptive SAM expert, of which two may add to the adaptive one's answer.

Read :mod:`.network` first, with :mod:`.encoders` and :mod:`.loss`; :mod:`.build` makes it from plain values and
:mod:`.picture` takes pictures of any size. :mod:`.views`, :mod:`.vote_pictures` and :mod:`.expert_answers` show what it
does.
"""
