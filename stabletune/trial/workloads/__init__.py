"""The training tasks shipped with stabletune: one module a task, found by the module's name, each with ``build``."""
