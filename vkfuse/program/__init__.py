""".pt2 -> `Program`: looked through as data, loaded without running anything of it, every weight a plain constant.

What stands in an untrusted archive is compared with lists of what is allowed (`names.py`); `check.py` and all that it
imports need no torch.
"""
