"""Published question sets, each in its own form, to question rows."""
