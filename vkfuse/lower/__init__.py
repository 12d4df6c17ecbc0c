"""Program -> .pte. Beside `vkfuse.operators`, the only importer of ExecuTorch."""
