"""The document that tells programs what a tenant may call: OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1). Values in, values out."""
