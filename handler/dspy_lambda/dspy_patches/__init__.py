"""Everything that touches DSPy's insides: what DSPy does not offer, and what it spends that is none of the program's.

`table.PATCHES` lists all of it. Each entry says what it saves, what it stands on, and is left out where that differs:
`table.patch_dspy` logs one warning that names what was left out, and there DSPy is as it comes. Nothing else in this
package imports or reads a private name of DSPy's: `tests/handler/dspy_patches/test_private_names.py` fails on one.
"""
