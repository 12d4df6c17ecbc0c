"""What each ExecuTorch Vulkan runtime has and does, and `judge`: may a call be delegated, would it load, would it be right.

Without torch. Callers say what they know of a call's operands: shapes and types of a graph that is not lowered yet,
with the storage open, or what a written file says.
"""
