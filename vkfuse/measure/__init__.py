"""What is in a file: every byte under a label, who reads which constant, the shaders that it carries."""
