"""`jetmask first-light`: the first hour on a device, steered from here."""
