"""Numpy and scipy on one block or one small matrix. No Dask, no files; tested against brute force or an identity."""
