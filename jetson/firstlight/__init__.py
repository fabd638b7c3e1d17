"""The first hour on a device: everything that no test elsewhere could, step by step, with a report."""
