"""The strict base class of all settings.

Settings stand on top of the file that reads them; `cli.py` fills them from YAML and the command line.
"""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen, validated also where defaults apply, and closed: an unknown key is an error.

    The docstring under a field is its help text on the command line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
