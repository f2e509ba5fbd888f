"""Configuration: one strict ``stanch.toml``, every value with a safe default and a known origin.

An empty or missing file is valid. Order: defaults < user file < workspace file < ``STANCH_<SECTION>__<KEY>``; what a
command is told by a flag wins over all of them. A list replaces the list of a lower layer. The sections ``access``,
``ledger`` and ``gate`` (who may, what is recorded, what blocks) are set by the workspace file alone.

Example:
    >>> from stanch.config import load_config
    >>> config = load_config(None, environ={"STANCH_GATEWAY__TOKENS_PER_DAY": "5"}, user_file=None)
    >>> config.gateway.tokens_per_day, config.origin("gateway.tokens_per_day")
    (5, 'environment STANCH_GATEWAY__TOKENS_PER_DAY')
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
