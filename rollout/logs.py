"""What an actor's log tells: a line for each thing that it does, and nothing of its libraries."""

import logging

import transformers


def log_what_is_done() -> logging.Logger:
    """The project's own logger, at INFO to stderr, where Ray files it under the actor's name."""
    transformers.utils.logging.set_verbosity_error()
    log = logging.getLogger("lapdog")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log
