"""The gateway's interface as data: each request that it answers, and the OpenAPI document that follows."""
