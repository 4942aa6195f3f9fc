"""Comfy API v2 (`/api/v2/jobs`, `/api/v2/assets`) as Comfy-Org's SDKs speak it: its documents, its words for errors. The rules are in policy/rules/v2_*.py."""
