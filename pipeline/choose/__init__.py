"""The Pareto front and the choice on it."""
