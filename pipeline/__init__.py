"""The passes (``embed``, ``select``, ``order``) and what stands round them; ``kernels`` is the mathematics below."""
