"""Everything that uses DSPy's internals: what DSPy does not offer, and overhead that it adds to programs.

`table.PATCHES` lists all patches. Each says what it saves and which names it depends on. If DSPy has changed one of
them, the patch is left out, DSPy is unchanged there, and `table.patch_dspy` logs one warning that names all such
patches. Nothing else in this package uses private names of DSPy: `tests/handler/dspy_patches/test_private_names.py`
checks that.
"""
