"""The names of formats, as ``complete`` takes them; formats.py tells what each of them is."""

from __future__ import annotations

FORMAT_NAMES = (
    *("gzip", "bzip2", "xz", "zstd", "zip", "tar", "7z"),
    *("netcdf3", "hdf5", "netcdf4", "grib", "bufr", "tiff", "parquet", "sqlite"),
    *("pdf", "png", "jpeg", "xml", "json", "jsonlines", "csv"),
)
AUTO = "auto"
THOROUGH = ":thorough"
"""Behind a format's name: to be read as a whole, whatever its size."""


def is_known(name: str) -> bool:
    """Say whether ``complete`` takes a format of that name."""
    return name.removesuffix(THOROUGH) in (AUTO, *FORMAT_NAMES)
