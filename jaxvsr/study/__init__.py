"""Studies: several training runs that differ in little, their scores in one table, and what the papers say beside."""
