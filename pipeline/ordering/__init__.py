"""The parts of ``order``: its options, schedules as tables, and what is told of them."""
