"""The verb that runs it all."""
