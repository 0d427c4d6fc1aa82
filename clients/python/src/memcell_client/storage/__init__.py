"""A key-value storage of MemCells, shaped like the one that Python applications of this domain call.

Keys are event ids: 24 hexadecimal digits. Values are MemCells as JSON text, with datetimes in ISO 8601.
"""

from ._storage_async import MemCellStorage
from ._storage_sync import SyncMemCellStorage
from ._values import IdField

__all__ = ["IdField", "MemCellStorage", "SyncMemCellStorage"]
