"""Shapes in signatures are checked at run time during tests; small real images are shared by all of them."""

from jaxtyping import install_import_hook

install_import_hook("crosscontext", "beartype.beartype")
