"""Configuration: one strict ``stanch.toml``, every value with a safe default and a known origin.

An empty or missing file is valid. Order: defaults < user file < workspace file < ``STANCH_<SECTION>__<KEY>``; what a
command is told by a flag wins over all of them. A list replaces the list of a lower layer.

Example:
    >>> from stanch.config import load_config
    >>> config = load_config(None, environ={"STANCH_ACCESS__PROFILE": "team"}, user_file=None)
    >>> config.access.profile, config.origin("access.profile")
    ('team', 'environment STANCH_ACCESS__PROFILE')
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
