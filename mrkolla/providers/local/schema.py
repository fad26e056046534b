"""JSON schema of the local testbed's configuration."""

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,39}$"},
        "network": {"type": "string"},
        "images": {"type": ["string", "null"]},
        "registries": {"type": "array", "items": {"type": "string"}},
        "resources": {
            "type": "object",
            "properties": {
                "machines": {"type": "array", "items": {"$ref": "#/definitions/machine"}, "minItems": 1},
                "networks": {"type": "array", "items": {"$ref": "#/definitions/network"}, "minItems": 1},
            },
            "additionalProperties": False,
            "required": ["machines", "networks"],
        },
    },
    "additionalProperties": False,
    "required": ["name", "resources"],
    "definitions": {
        "machine": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,39}$"},
                "roles": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "network": {"type": "string"},
                "address": {"type": ["string", "null"]},
                "extra_addresses": {"type": "array", "items": {"type": "string"}},
                "external": {"type": "boolean"},
            },
            "additionalProperties": False,
            "required": ["name", "roles", "network"],
        },
        "network": {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "roles": {"type": "array", "items": {"type": "string"}},
                "cidr": {"type": ["string", "null"]},
            },
            "additionalProperties": False,
            "required": ["id", "roles"],
        },
    },
}
