"""Single source of truth for every file that is written or read: Arrow schemas, JSON Schemas, names and versions."""
