"""Program -> .pte. Beside `vkfuse.program.operators`, the only importer of ExecuTorch."""

from vkfuse.program.lighter import import_executorch

import_executorch()  # before any of its modules is imported
