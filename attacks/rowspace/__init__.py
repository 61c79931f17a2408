"""The parts of the row-space attack on LoRA updates (``attacks/inversion.py``)."""
