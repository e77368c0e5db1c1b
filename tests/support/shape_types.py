"""The run-time type checker of the tests: beartype, with int accepted for float as static checkers do (PEP 484)."""

from beartype import BeartypeConf, beartype

checker = beartype(conf=BeartypeConf(is_pep484_tower=True))
