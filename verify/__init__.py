"""The checker: real load, real faults, and an account of every event. `docs/reliability.md` says what it proves and what not."""
