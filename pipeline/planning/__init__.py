"""The parts of ``plan``: its options, and the file of trainings."""
