from .act import Done, Request
from .door import Door
from .keyring import Keyring
from .opening import Workspace, find_workspace
from .people import People

__all__ = ["Done", "Door", "Keyring", "People", "Request", "Workspace", "find_workspace"]
