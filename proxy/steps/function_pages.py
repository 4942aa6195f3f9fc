"""What a person sees who opens the address of a function: a form to fill in, in the place of the schema that a program gets."""

from __future__ import annotations

from policy.call import ClientReply
from policy.rule_context import RuleInput
from proxy.pages.me import wants_html
from proxy.steps.permit import PermittedRequest

_VARY = ("Vary", "Accept")


def function_page(permitted: PermittedRequest, asked: RuleInput, told: ClientReply) -> ClientReply:
    """told: to a program, after which the function is known to be one that the caller may call."""
    record, functions = permitted.record, asked.context.functions
    record.response_headers.append(_VARY)
    if not wants_html(permitted.request.headers.get("Accept", "")):
        return told
    # Nobody but people needs them (tests/commands/test_footprint.py).
    from proxy.pages.functions import form_page, list_page

    name = asked.call.parameters.get("name")
    if name is None:
        shown = tuple(called.function for called in functions.values())
        return list_page(shown, record.root, takes_workflows=asked.context.takes_workflows)
    max_file_bytes = permitted.compiled.config.server.max_upload_bytes
    takes_addresses = bool(asked.context.fetches)
    return form_page(functions[name].function, record.root, max_file_bytes, takes_addresses=takes_addresses)
