from .blob import CREATE, REPLACE, BlobInfo, BlobStore, Match, PutMode, check_key
from .blob_file import FileBlobs
from .bucket import Bucket
from .http import HttpRequest, HttpResponse, exchange
from .migrate import Migration, migrate
from .tables import Tables
from .uri import open_blobs, open_tables

__all__ = [
    "CREATE",
    "REPLACE",
    "BlobInfo",
    "BlobStore",
    "Bucket",
    "FileBlobs",
    "HttpRequest",
    "HttpResponse",
    "Match",
    "Migration",
    "PutMode",
    "Tables",
    "check_key",
    "exchange",
    "migrate",
    "open_blobs",
    "open_tables",
]
