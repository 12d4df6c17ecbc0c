"""Program -> .pte. Beside `vkfuse.program.operators`, the only importer of ExecuTorch."""
