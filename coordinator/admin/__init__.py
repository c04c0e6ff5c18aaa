"""What admins and operators see: the admin service, its read model, metrics, health."""
