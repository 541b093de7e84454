"""Parts of ``explain`` and ``locate``: samples of a manifest by name, by text and by place in the order."""
