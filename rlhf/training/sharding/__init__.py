"""How the weights of a run lie on its processes: whole on each (`replicated.py`), or in shards (`fsdp2.py`).

Belongs here: everything that knows which of the two it is. Stages ask `processes.sharding` and do not look.
"""
