"""AP, error analysis, the gate."""
