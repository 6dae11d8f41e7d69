"""Results on disk and in other libraries."""
