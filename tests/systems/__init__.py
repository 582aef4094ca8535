"""Eight kinds of system, each tiny, on the contract of networks, objectives and rules: what a paper needs, and no file of
the library changed for it."""
