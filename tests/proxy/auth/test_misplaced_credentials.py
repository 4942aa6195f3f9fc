"""A credential is searched for wherever it has no business, also by a connection that says the same again."""

from __future__ import annotations

import pytest

from policy.call import ClientCall
from policy.violation import Reason, Violation
from proxy.auth.misplaced_credentials import search_head
from tests.proxy.http.requests import made_request

COOKIES = "comfygate_session=first-session-of-hers; __Host-comfygate_session=second-session-of-hers"
NAMES = ("comfygate_session", "__Host-comfygate_session")


def test_another_cookie_is_searched_for_when_the_gate_goes_by_another_name() -> None:
    """It does when a reload tells it that it is reached by https."""
    request = made_request(Cookie=COOKIES)
    for name, value in zip(NAMES, ("first-session-of-hers", "second-session-of-hers"), strict=True):
        assert search_head(request, (), ClientCall("GET", ("view",)), name).texts == {value}
        with pytest.raises(Violation) as caught:
            search_head(request, (), ClientCall("GET", ("view", value)), name)
        assert caught.value.reason is Reason.CREDENTIAL_MISPLACED


def test_what_was_found_without_a_token_is_not_what_is_found_with_one() -> None:
    request = made_request(X_API_Key="a-key-of-hers-that-is-long")
    assert search_head(request, (), ClientCall("GET", ("view",)), NAMES[0]).texts == {"a-key-of-hers-that-is-long"}
    with_token = search_head(
        request, (("token", "a-token-of-hers-that-is-long"),), ClientCall("GET", ("view",)), NAMES[0]
    )
    assert with_token.texts == {"a-key-of-hers-that-is-long", "a-token-of-hers-that-is-long"}
    assert search_head(request, (), ClientCall("GET", ("view",)), NAMES[0]).texts == {"a-key-of-hers-that-is-long"}
