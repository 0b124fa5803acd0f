"""Compiled kernels: C++ sources, and what builds and loads them."""
