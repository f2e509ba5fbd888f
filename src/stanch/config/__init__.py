"""Configuration: one strict ``stanch.toml``, every value with a safe default and a known origin.

An empty or missing file is valid. Order: defaults < user file < workspace file < ``STANCH_<SECTION>__<KEY>``.

Example:
    >>> config = load_config(None, environ={"STANCH_ACCESS__PROFILE": "team"}, user_file=None)
    >>> config.access.profile, config.origin("access.profile")
    ('team', 'environment STANCH_ACCESS__PROFILE')
"""

from stanch.config.load import load_config
from stanch.config.model import AccessSection, Config, LedgerSection, WorkspaceSection

__all__ = ["AccessSection", "Config", "LedgerSection", "WorkspaceSection", "load_config"]
