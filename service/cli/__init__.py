"""The command `limpid`: image files through the defence, in this process or through a service."""
