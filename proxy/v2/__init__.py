"""How Comfy-Org's SDKs see jobs and files (Comfy API v2). What an answer says is policy/v2's."""
