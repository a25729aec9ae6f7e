"""The report on a suite: one page with its tables, figures, images and records."""
