"""Settings of a server that passages are asked of."""

import os
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rollout.config import NonNegative, Positive, Section
from rollout.errors import SettingsError
from rollout.setting_tags import Place, ReadBy

TOKEN_VARIABLE = "LAPDOG_RETRIEVE_TOKEN"  # what a server asks for; a setting would be written into the run folder
OF_A_SERVER = ReadBy("chat", "evaluate")


def own_token() -> str | None:
    """What stands in the variable, without white space round it. Raises SettingsError for what no header can hold."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise SettingsError(f"{TOKEN_VARIABLE}: holds signs that a header cannot; give printable ASCII")
    return token or None


class UrlSettings(Section):
    """`url` and what is read only with it."""

    url: Annotated[str | None, Place(), OF_A_SERVER] = Field(
        None,
        description="server that passages are asked of in place of data.passages, as http://HOST:8000/retrieve: "
        f"`launch.py retrieve`, or another that speaks Search-R1's format; its token stands in {TOKEN_VARIABLE}",
    )
    url_batch: Annotated[Positive, Place(), OF_A_SERVER] = Field(
        64, description="most queries that one request to the server holds"
    )
    url_deadline_s: Annotated[float, Field(gt=0), Place(), OF_A_SERVER] = Field(
        30.0, description="seconds that it may take to answer a request, before that is tried again"
    )
    url_attempts: Annotated[Positive, Place(), OF_A_SERVER] = Field(
        8, description="times a request is tried while the server cannot be reached or is busy; pauses between them double"
    )
    url_cache: Annotated[NonNegative, Place(), OF_A_SERVER] = Field(
        4096, description="answers to the newest queries that each sampler remembers; 0: none"
    )

    @field_validator("url")
    @classmethod
    def _url_can_be_asked(cls, url: str | None) -> str | None:
        """Without a path it is that of the format's own."""
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.split() == [url]
        except ValueError:  # of a port or an address in brackets
            is_one = False
        if not is_one:
            raise ValueError("it is no address of a server; give one as http://HOST:8000/retrieve")
        if parts.username is not None or parts.password is not None:
            raise ValueError(f"a name or password would be written into the run folder; put a token into {TOKEN_VARIABLE}")
        return url if parts.path not in ("", "/") else parts._replace(path="/retrieve").geturl()
