"""What a device needs, in one folder."""
