"""Events that last: kept in SQLite, found again, summed up by hour and day."""
