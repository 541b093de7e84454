"""The parts of ``order``: schedules as tables, and what is told of them."""
